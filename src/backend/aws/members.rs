//! Members of a value that is a JSON object, for writing some of them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::secret::SecretValue;

/// The map with the members of another; those that are null are removed. `None` when one of them is no map.
pub(super) fn merged(map: &SecretValue, changes: &SecretValue) -> Option<SecretValue> {
    type Members<'a> = BTreeMap<String, &'a RawValue>;
    let mut members: Members<'_> = serde_json::from_slice(map.expose()).ok()?;
    let changes: Members<'_> = serde_json::from_slice(changes.expose()).ok()?;
    for (name, value) in changes {
        if value.get() == "null" {
            members.remove(&name)
        } else {
            members.insert(name, value)
        };
    }
    serde_json::to_vec(&members).ok().map(SecretValue::new)
}

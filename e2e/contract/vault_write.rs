//! The power to write, on a real KV 2 engine: what was expected decides, and what was deleted comes back.

use std::{collections::BTreeMap, sync::Arc};

use keyferry::{
    backend::{Expected, Written},
    fault::Reason,
    item::Reading,
    name::{ProviderKind, RemoteKey, RemoteRef},
    secret::SecretValue,
};
use serde_json::{Value, json};

use super::{
    OpenBao,
    subject::{Damage, Subject},
    vault::Vault,
};

fn map(value: &Value) -> SecretValue {
    SecretValue::from(value.to_string())
}

fn version(number: u64) -> Written {
    Written::Version(number.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_done_where_it_finds_what_it_expects_and_can_be_taken_back() {
    let bao = Arc::new(OpenBao::start().await);
    let mut subject = Vault::start_writing(bao.clone()).await;
    let store = subject.open().unwrap();
    let writer = store.writer().expect("KV 2 can be written");
    let key = RemoteKey::parse(ProviderKind::Vault, "app/d b?").unwrap();
    let current = || async { subject.current("app/d%20b%3F").await };
    let at = |number: u64| Expected::Version(number.to_string());

    assert_eq!(writer.put(&key, &map(&json!({"a": "1", "b": "2"})), &Expected::Nothing).await, Ok(version(1)));
    assert_eq!(writer.put(&key, &map(&json!({"a": "x"})), &Expected::Nothing).await, Ok(Written::Changed));
    assert_eq!(writer.put(&key, &map(&json!({"a": "x"})), &at(2)).await, Ok(Written::Changed));
    assert_eq!(current().await, json!({"a": "1", "b": "2"}));
    assert_eq!(writer.patch(&key, &map(&json!({"b": null, "c": "3"})), &at(1)).await, Ok(version(2)));
    assert_eq!(current().await, json!({"a": "1", "c": "3"}));
    assert_eq!(writer.patch(&key, &map(&json!({"c": "4"})), &at(1)).await, Ok(Written::Changed));
    let missing = RemoteKey::parse(ProviderKind::Vault, "missing").unwrap();
    assert_eq!(writer.patch(&missing, &map(&json!({"c": "4"})), &Expected::Anything).await, Ok(Written::Changed));
    assert_eq!(writer.put(&key, &map(&json!({"a": "5"})), &Expected::Anything).await, Ok(version(3)));

    assert_eq!(writer.delete(&key).await, Ok(()));
    assert_eq!(current().await, Value::Null);
    assert_eq!(writer.undelete(&key, "3").await, Ok(()));
    assert_eq!(current().await, json!({"a": "5"}));
    let tags = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
    assert_eq!(writer.set_metadata(&key, &tags).await, Ok(()));
    let tagged = store.lister().unwrap().list_tagged(None, &tags).await.unwrap();
    assert_eq!(tagged, std::slice::from_ref(&key));
    let beside = store.fetch(&[RemoteRef { key: key.clone(), version: None, is_metadata: true }]).await.remove(0);
    assert!(matches!(&beside, Reading::Found(found) if found.value.expose() == br#"{"team":"shop"}"#), "{beside:?}");

    for no_map in ["[1]", "1", "", "{", "\"canary\""] {
        let fault = writer.put(&key, &SecretValue::from(no_map.to_owned()), &Expected::Anything).await.unwrap_err();
        assert!(fault.reason == Reason::InvalidData && !fault.detail.contains("canary"), "{fault}");
    }
    assert_eq!(writer.put(&key, &map(&json!({})), &Expected::Version("x".into())).await.unwrap_err().reason, Reason::InvalidSpec);
    subject.damage(Damage::Failing(500)).await;
    let fault = writer.put(&key, &map(&json!({"a": "canary"})), &Expected::Anything).await.unwrap_err();
    assert!(fault.reason == Reason::ProviderUnavailable && !fault.detail.contains("canary"), "{fault}");
    subject.mend().await;
    assert_eq!(subject.current("app/d%20b%3F").await, json!({"a": "5"}), "nothing was written meanwhile");
}

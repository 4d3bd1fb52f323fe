//! What the status of a store says, and when it is news. Pure; the controller writes it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{
    cluster::EventText,
    crd::{
        condition::{self, READY, RECONCILING, STALLED},
        v1alpha1::{Capabilities, StoreStatus},
    },
    digest::sha256_hex,
    fault::{Fault, Reason, Retry, retry},
    governor::SessionId,
    name::ProviderKind,
};

/// What came of a check.
#[derive(Clone, Debug)]
pub struct Checked {
    pub generation: i64,
    pub provider: Option<ProviderKind>,
    /// What was checked; none when there was no session to check.
    pub inputs: Option<String>,
    pub verdict: Result<Capabilities, Fault>,
    pub now: Timestamp,
}

/// The `inputs` of a status: which generation and credential it speaks of. A restart sees by it whether they are others by now.
#[must_use]
pub fn inputs(session: &SessionId) -> String {
    sha256_hex(&format!("{} {} {}", session.store, session.generation, session.credential))[..32].to_owned()
}

/// The status after a check, computed from the earlier one. Equal means: write nothing.
#[must_use]
pub fn status(earlier: &StoreStatus, checked: &Checked) -> StoreStatus {
    let is_same = earlier.observed_generation == Some(checked.generation);
    StoreStatus {
        observed_generation: Some(checked.generation),
        conditions: conditions(earlier, checked),
        provider: checked.provider.map(|provider| provider.as_str().to_owned()),
        capabilities: checked.verdict.as_ref().ok().copied().or(earlier.capabilities.filter(|_| is_same)),
        inputs: checked.inputs.clone(),
    }
}

fn conditions(earlier: &StoreStatus, checked: &Checked) -> Vec<Condition> {
    let make = |kind: &str, is_true: bool, reason: Reason, message: &str| {
        condition::transition(&earlier.conditions, kind, is_true, reason.as_str(), message, Some(checked.generation), checked.now)
    };
    match &checked.verdict {
        Ok(_) => vec![make(READY, true, Reason::Synced, "the store can be reached and accepts the login")],
        Err(fault) => {
            let message = condition::message(&fault.detail, "");
            let why = if retry(fault) == Retry::AwaitChange { STALLED } else { RECONCILING };
            vec![make(READY, false, fault.reason, &message), make(why, true, fault.reason, &message)]
        }
    }
}

/// Whether a status, found after a restart, tells of this generation and credential that all is well.
#[must_use]
pub fn stands(status: &StoreStatus, generation: i64, inputs: Option<&str>) -> bool {
    is_ready(status) && status.observed_generation == Some(generation) && inputs.is_some() && status.inputs.as_deref() == inputs
}

/// Whether the status says that the store can be used.
#[must_use]
pub fn is_ready(status: &StoreStatus) -> bool {
    condition::is_true(&status.conditions, READY)
}

/// The event of a status that tells of a fault, if the one before did not tell of the same.
#[must_use]
pub fn event(earlier: &StoreStatus, checked: &Checked) -> Option<EventText> {
    let fault = checked.verdict.as_ref().err()?;
    let told = condition::find(&earlier.conditions, READY).filter(|ready| ready.status == "False").map(|ready| ready.reason.as_str());
    (told != Some(fault.reason.as_str())).then(|| EventText {
        reason: fault.reason.as_str(),
        action: "Check",
        note: condition::message(&fault.detail, ""),
        is_warning: true,
        time: checked.now,
    })
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, Checked, Fault, ProviderKind, Reason, StoreStatus, event, inputs, stands, status};
    use crate::{
        crd::condition::{READY, RECONCILING, STALLED, find},
        engine::scene::noon,
        fault::Class,
        governor::SessionId,
    };

    fn checked(generation: i64, verdict: Result<Capabilities, Fault>) -> Checked {
        Checked { generation, provider: Some(ProviderKind::Vault), inputs: Some("in".to_owned()), verdict, now: noon() }
    }

    fn well() -> Capabilities {
        Capabilities { read: true, ..Capabilities::default() }
    }

    #[test]
    fn a_store_that_answers_is_ready_and_says_what_it_can() {
        let first = status(&StoreStatus::default(), &checked(3, Ok(well())));
        let ready = find(&first.conditions, READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str(), ready.observed_generation), ("True", "Synced", Some(3)));
        assert_eq!((first.provider.as_deref(), first.capabilities, first.conditions.len()), (Some("vault"), Some(well()), 1));
        assert!(event(&StoreStatus::default(), &checked(3, Ok(well()))).is_none(), "a first success is no news");
        let mut later = checked(3, Ok(well()));
        later.now = "2027-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(status(&first, &later), first, "nothing to write");
        assert!(stands(&first, 3, Some("in")));
        for (generation, inputs) in [(4, Some("in")), (3, Some("other")), (3, None)] {
            assert!(!stands(&first, generation, inputs), "{generation} {inputs:?}");
        }
    }

    #[test]
    fn a_fault_is_told_with_its_reason_and_what_follows() {
        let cases = [
            (Fault::unavailable("x"), RECONCILING, "ProviderUnavailable"),
            (Fault::new(Class::Unavailable, Reason::Sealed, "x"), RECONCILING, "Sealed"),
            (Fault::access_denied("x"), RECONCILING, "AccessDenied"),
            (Fault::invalid(Reason::InvalidSpec, "x"), STALLED, "InvalidSpec"),
            (Fault::not_allowed("x"), STALLED, "NotAllowed"),
        ];
        let before = status(&StoreStatus::default(), &checked(1, Ok(well())));
        for (fault, kind, reason) in cases {
            let failed = checked(1, Err(fault));
            let next = status(&before, &failed);
            let ready = find(&next.conditions, READY).unwrap();
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", reason));
            assert_eq!(find(&next.conditions, kind).unwrap().status, "True", "{reason}");
            assert_eq!((next.conditions.len(), next.capabilities), (2, Some(well())), "what it could do is kept");
            assert!(!stands(&next, 1, Some("in")));
            let news = event(&before, &failed).unwrap();
            assert_eq!((news.reason, news.note.as_str(), news.is_warning), (reason, "x", true));
            assert!(event(&next, &failed).is_none(), "{reason}: told once");
            let back = status(&next, &checked(1, Ok(well())));
            assert_eq!(back.conditions.len(), 1, "nothing but Ready is left");
        }
    }

    #[test]
    fn capabilities_of_another_generation_are_not_kept() {
        let before = status(&StoreStatus::default(), &checked(1, Ok(well())));
        assert_eq!(status(&before, &checked(2, Err(Fault::unavailable("x")))).capabilities, None);
    }

    #[test]
    fn messages_end_at_512_characters() {
        let next = status(&StoreStatus::default(), &checked(1, Err(Fault::unavailable("ü".repeat(600)))));
        assert_eq!(next.conditions[0].message.chars().count(), 512);
    }

    #[test]
    fn another_generation_or_credential_is_another_input() {
        let of =
            |generation, credential: &str| inputs(&SessionId { store: "uid".to_owned(), generation, credential: credential.to_owned() });
        assert_eq!(of(1, "a"), of(1, "a"));
        assert!(of(1, "a") != of(2, "a") && of(1, "a") != of(1, "b") && of(1, "a").len() == 32);
    }
}

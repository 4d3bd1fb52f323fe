//! The rows. Each gets a fresh store and panics unless it holds.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture};
use keyferry::{
    fault::{Class, Fault, Reason},
    item::Reading,
    name::{KeyError, ProviderKind, RemoteKey, RemoteRef},
};

use super::{
    subject::{Damage, Open, Payload, Subject},
    wire::Hint,
};

pub struct Row {
    pub name: &'static str,
    pub run: fn(Box<dyn Subject>) -> BoxFuture<'static, ()>,
}

pub const ROWS: &[Row] = &[
    Row { name: "a value is found with its exact bytes", run: |subject| exact(subject, Payload::text("é \" \\ \n")).boxed() },
    Row { name: "an empty value is found, not absent", run: |subject| exact(subject, Payload::Empty).boxed() },
    Row { name: "a binary value is found with its exact bytes", run: |subject| exact(subject, Payload::Binary).boxed() },
    Row { name: "a value of 64 KiB is found", run: |subject| exact(subject, Payload::Sized(64 << 10)).boxed() },
    Row { name: "a value of 1 MiB is found", run: |subject| exact(subject, Payload::Sized(1 << 20)).boxed() },
    Row { name: "a missing key is proven absent", run: |subject| missing(subject).boxed() },
    Row { name: "each reference has its own reading, in order", run: |subject| in_order(subject).boxed() },
    Row { name: "a key climbs out of nothing", run: |subject| climbing(subject).boxed() },
    Row { name: "keys with spaces, marks and all scripts are one key each", run: |subject| odd_keys(subject).boxed() },
    Row { name: "a version is pinned, and one that is not there is absent", run: |subject| pinned(subject).boxed() },
    Row { name: "a word that is no version is never a value", run: |subject| no_version(subject).boxed() },
    Row { name: "a new version is seen by a store that is open", run: |subject| renewed(subject).boxed() },
    Row { name: "a removed key is absent again", run: |subject| removed(subject).boxed() },
    Row { name: "a softly deleted value is Deleted until it is undeleted", run: |subject| soft_deleted(subject).boxed() },
    Row { name: "a disabled value is Disabled until it is enabled", run: |subject| disabled(subject).boxed() },
    Row { name: "an expired value is Expired", run: |subject| expired(subject).boxed() },
    Row { name: "a destroyed version is Destroyed", run: |subject| destroyed(subject).boxed() },
    Row { name: "a list names every key below its path, at all depths", run: |subject| listed(subject).boxed() },
    Row { name: "an empty list is a list", run: |subject| nothing_listed(subject).boxed() },
    Row { name: "a list that fails in one part fails", run: |subject| half_listed(subject).boxed() },
    Row { name: "a truncated answer is unknown", run: |subject| broken(subject, Damage::Truncated).boxed() },
    Row { name: "a malformed answer is unknown", run: |subject| broken(subject, Damage::Malformed).boxed() },
    Row { name: "a sealed server is Sealed", run: |subject| broken(subject, Damage::Sealed).boxed() },
    Row { name: "what the identity may not read is denied, there or not", run: |subject| broken(subject, Damage::Denied).boxed() },
    Row { name: "an expired credential is never absence", run: |subject| broken(subject, Damage::Expired).boxed() },
    Row { name: "a missing credential says what to do", run: |subject| no_credential(subject).boxed() },
    Row { name: "without its parent nothing is absent", run: |subject| broken(subject, Damage::NoParent).boxed() },
    Row { name: "another engine in its place is no absence", run: |subject| broken(subject, Damage::OtherEngine).boxed() },
    Row { name: "a change is hinted at", run: |subject| hinted(subject).boxed() },
];

/// Rows about the network between store and reader: for every backend that has one.
pub const ON_THE_WIRE: &[Row] = &[
    Row { name: "many reads share connections, and each is one call", run: |subject| thrifty(subject).boxed() },
    Row { name: "a slow answer is an answer", run: |subject| slow(subject).boxed() },
    Row { name: "a server that hangs is unknown at the deadline", run: |subject| broken(subject, Damage::Hang).boxed() },
    Row {
        name: "a server that hangs in its TLS handshake is unknown at the deadline",
        run: |subject| broken(subject, Damage::HangInTls).boxed(),
    },
    Row { name: "an answer that drips is unknown at the deadline", run: |subject| broken(subject, Damage::Dripping).boxed() },
    Row { name: "a reset connection is unknown", run: |subject| broken(subject, Damage::Reset).boxed() },
    Row { name: "a connection that closes without an answer is unknown", run: |subject| broken(subject, Damage::Close).boxed() },
    Row { name: "an answer without its last chunk is unknown", run: |subject| broken(subject, Damage::TruncatedChunks).boxed() },
    Row { name: "an answer cut so that its length agrees is unknown", run: |subject| broken(subject, Damage::TruncatedUnnoticed).boxed() },
    Row { name: "an answer with more behind its end is unknown", run: |subject| broken(subject, Damage::TwoAnswers).boxed() },
    Row { name: "an answer of great depth is unknown", run: |subject| broken(subject, Damage::Deep).boxed() },
    Row { name: "null is unknown", run: |subject| broken(subject, Damage::Null).boxed() },
    Row { name: "an answer of another shape is unknown", run: |subject| broken(subject, Damage::OtherShape).boxed() },
    Row { name: "an empty answer is unknown", run: |subject| broken(subject, Damage::NoBody).boxed() },
    Row { name: "no content is unknown", run: |subject| broken(subject, Damage::NoContent).boxed() },
    Row { name: "a page of HTML is unknown", run: |subject| broken(subject, Damage::Page).boxed() },
    Row { name: "a page of HTML that says 404 is unknown", run: |subject| broken(subject, Damage::MissingPage).boxed() },
    Row { name: "an answer beyond all bounds is unknown", run: |subject| broken(subject, Damage::Oversized).boxed() },
    Row { name: "an answer without an end is unknown", run: |subject| broken(subject, Damage::Endless).boxed() },
    Row { name: "an answer that unpacks to hundreds of MiB is unknown", run: |subject| broken(subject, Damage::Bomb).boxed() },
    Row { name: "an answer packed twice is unknown", run: |subject| broken(subject, Damage::NestedBomb).boxed() },
    Row { name: "headers of a mebibyte are unknown", run: |subject| broken(subject, Damage::LargeHeaders).boxed() },
    Row { name: "ten thousand headers are unknown", run: |subject| broken(subject, Damage::ManyHeaders).boxed() },
    Row { name: "a throttled call carries the server's hint", run: |subject| broken(subject, Damage::Throttled(Hint::Seconds)).boxed() },
    Row { name: "a throttled call carries a hint that is a date", run: |subject| broken(subject, Damage::Throttled(Hint::Date)).boxed() },
    Row { name: "a throttled call without a hint is throttled", run: |subject| broken(subject, Damage::Throttled(Hint::None)).boxed() },
    Row {
        name: "a throttled call with a hint that is none is throttled",
        run: |subject| broken(subject, Damage::Throttled(Hint::Nonsense)).boxed(),
    },
    Row { name: "a server that fails with 500 is unknown", run: |subject| broken(subject, Damage::Failing(500)).boxed() },
    Row { name: "a server that fails with 502 is unknown", run: |subject| broken(subject, Damage::Failing(502)).boxed() },
    Row { name: "a server that fails with 503 is unknown", run: |subject| broken(subject, Damage::Failing(503)).boxed() },
    Row { name: "a server that fails with 504 is unknown", run: |subject| broken(subject, Damage::Failing(504)).boxed() },
    Row { name: "a redirect with 301 is unknown and not followed", run: |subject| broken(subject, Damage::Redirect(301)).boxed() },
    Row { name: "a redirect with 302 is unknown and not followed", run: |subject| broken(subject, Damage::Redirect(302)).boxed() },
    Row { name: "a redirect with 307 is unknown and not followed", run: |subject| broken(subject, Damage::Redirect(307)).boxed() },
    Row { name: "a redirect with 308 is unknown and not followed", run: |subject| broken(subject, Damage::Redirect(308)).boxed() },
    Row { name: "an answer under another content type is no absence", run: |subject| relabelled(subject).boxed() },
    Row { name: "a list without an end is unknown", run: |subject| endless_list(subject).boxed() },
    Row { name: "a server with another authority is unknown", run: |subject| broken(subject, Damage::OtherAuthority).boxed() },
];

async fn exact(mut subject: Box<dyn Subject>, payload: Payload) {
    let written = subject.write("app/db", &payload).await;
    let found = Open::of(&*subject).found("app/db", None).await;
    assert!(found.value.expose() == written.bytes, "{} bytes came back of {}", found.value.len(), written.bytes.len());
    assert_eq!(found.version, written.told);
}

async fn missing(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("a")).await;
    let store = Open::of(&*subject);
    for key in ["app/none", "none", "app/db/x", "app", "ap"] {
        let fault = store.absent(key, None).await;
        assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::NotFound), "{key}");
        assert!(fault.detail.contains(&format!("{:?}", store.spelled(key))), "{fault}");
        assert_eq!(store.absent(key, None).await, fault, "the message changes between attempts");
    }
}

async fn in_order(mut subject: Box<dyn Subject>) {
    let one = subject.write("one", &Payload::text("1")).await;
    let two = subject.write("two", &Payload::text("2")).await;
    let store = Open::of(&*subject);
    let refs = ["two", "none", "one", "two"].map(|key| RemoteRef { key: store.key(key), version: None, is_metadata: false });
    let readings = store.fetch(&refs).await;
    let values = readings.iter().map(|reading| match reading {
        Reading::Found(found) => Some(found.value.expose().to_vec()),
        Reading::Absent(_) => None,
        Reading::Unknown(fault) => panic!("{fault}"),
    });
    assert!(values.eq([Some(two.bytes.clone()), None, Some(one.bytes), Some(two.bytes)]));
    assert!(store.fetch(&[]).await.is_empty());
}

async fn climbing(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("inside")).await;
    subject.write_outside().await;
    let store = Open::of(&*subject);
    if subject.keys() != ProviderKind::Fake {
        for key in ["../outside/x", "app/../../outside/x", "./app/db", "app/.."] {
            assert_eq!(RemoteKey::parse(subject.keys(), key), Err(KeyError::Traversal), "{key}");
        }
    }
    let hidden =
        ["%2e%2e/outside/x", "app/%2e%2e/db", "..%2foutside", "..;/outside", "..\\outside", "%2e%2e/%2e%2e/outside/data/x", "app%2fdb"];
    for key in hidden {
        // Some systems have no such keys at all; to the others they are names like any.
        if RemoteKey::parse(subject.keys(), key).is_ok() {
            assert_eq!(store.absent(key, None).await.reason, Reason::NotFound, "{key}");
        }
    }
}

async fn odd_keys(mut subject: Box<dyn Subject>) {
    let keys = [
        "sp ace/ü/ключ/鍵/🔑",
        "q?version=1",
        "h#ash/p%25cent/%2f",
        "-._~!$&'()*+,;=:@",
        "back\\slash/\"quo'te\"",
        "<a>|^`{}[]",
        ".hidden/...",
        "UPPER/upper",
        "upper/upper",
        "data/metadata/data",
    ];
    let mut written = Vec::new();
    for key in keys {
        written.push((key, subject.write(key, &Payload::text(key)).await));
    }
    let store = Open::of(&*subject);
    for (key, written) in written {
        assert!(store.found(key, None).await.value.expose() == written.bytes, "{key}");
    }
    let mut expected = keys.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(store.list(None).await.unwrap(), expected);
}

async fn pinned(mut subject: Box<dyn Subject>) {
    let mut versions = Vec::new();
    for text in ["one", "two", "three"] {
        versions.push(subject.write("app/db", &Payload::text(text)).await);
    }
    let store = Open::of(&*subject);
    for written in &versions {
        let version = written.version.as_deref().expect("a version");
        let found = store.found("app/db", Some(version)).await;
        assert!(found.value.expose() == written.bytes && found.version.as_deref() == Some(version), "{version}");
    }
    let last = versions.pop().unwrap();
    assert!(store.found("app/db", None).await.value.expose() == last.bytes);
    for (key, version) in [("app/db", "99"), ("app/none", "1")] {
        assert_eq!(store.absent(key, Some(version)).await.reason, Reason::NotFound, "{key} {version}");
    }
}

async fn no_version(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    let store = Open::of(&*subject);
    for version in ["0", "-1", "01", "latest", " 1", "1 ", "18446744073709551616", "1&version=2"] {
        match store.read("app/db", Some(version)).await {
            Reading::Unknown(fault) => assert_eq!((fault.class, fault.reason), (Class::Invalid, Reason::InvalidSpec), "{version}"),
            // To a manifest every word is the name of a version, and to Secrets Manager that of a stage.
            Reading::Absent(fault) if matches!(subject.keys(), ProviderKind::Fake | ProviderKind::AwsSecretsManager) => {
                assert_eq!(fault.reason, Reason::NotFound);
            }
            // Those two may be labels.
            Reading::Absent(fault) if subject.keys() == ProviderKind::AwsParameterStore && ["-1", "latest"].contains(&version) => {
                assert_eq!(fault.reason, Reason::NotFound);
            }
            other => panic!("{version}: {other:?}"),
        }
    }
}

async fn renewed(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    let store = Open::of(&*subject);
    store.found("app/db", None).await;
    store.absent("app/new", None).await;
    let (two, new) = (subject.write("app/db", &Payload::text("two")).await, subject.write("app/new", &Payload::text("new")).await);
    for (key, written) in [("app/db", two), ("app/new", new)] {
        let found = store.found(key, None).await;
        assert!(found.value.expose() == written.bytes && found.version == written.told, "{key}");
    }
}

async fn removed(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    subject.write("app/stays", &Payload::text("one")).await;
    Open::of(&*subject).found("app/db", None).await;
    subject.remove("app/db").await;
    let store = Open::of(&*subject);
    assert_eq!(store.absent("app/db", None).await.reason, Reason::NotFound);
    assert_eq!(store.list(None).await.unwrap(), ["app/stays"]);
}

async fn soft_deleted(mut subject: Box<dyn Subject>) {
    let one = subject.write("app/db", &Payload::text("one")).await;
    let two = subject.write("app/db", &Payload::text("two")).await;
    let store = Open::of(&*subject);
    subject.soft_delete("app/db").await;
    let version = two.version.as_deref();
    for version in [None, version] {
        let fault = store.absent("app/db", version).await;
        assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::Deleted), "{version:?}");
        assert_eq!(store.absent("app/db", version).await, fault);
    }
    assert!(store.found("app/db", one.version.as_deref()).await.value.expose() == one.bytes, "the version before it is untouched");
    subject.undelete("app/db", version.unwrap()).await;
    assert!(store.found("app/db", None).await.value.expose() == two.bytes);
}

async fn disabled(mut subject: Box<dyn Subject>) {
    let one = subject.write("app/db", &Payload::text("one")).await;
    let store = Open::of(&*subject);
    subject.enable("app/db", false).await;
    for version in [None, one.version.as_deref()] {
        let fault = store.absent("app/db", version).await;
        assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::Disabled), "{version:?}");
    }
    assert_eq!(store.list(None).await.unwrap(), ["app/db"], "a search must be able to tell that it is withheld");
    subject.enable("app/db", true).await;
    assert!(store.found("app/db", None).await.value.expose() == one.bytes);
}

async fn expired(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    let store = Open::of(&*subject);
    subject.expire("app/db").await;
    let fault = store.absent("app/db", None).await;
    assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::Expired), "{fault}");
    assert_eq!(store.absent("app/db", None).await, fault, "the message changes between attempts");
    assert_eq!(store.list(None).await.unwrap(), ["app/db"]);
}

async fn destroyed(mut subject: Box<dyn Subject>) {
    let one = subject.write("app/db", &Payload::text("one")).await;
    let two = subject.write("app/db", &Payload::text("two")).await;
    let store = Open::of(&*subject);
    subject.destroy("app/db", two.version.as_deref().unwrap()).await;
    for version in [None, two.version.as_deref()] {
        let fault = store.absent("app/db", version).await;
        assert_eq!((fault.class, fault.reason), (Class::Absent, Reason::Destroyed), "{version:?}");
    }
    assert!(store.found("app/db", one.version.as_deref()).await.value.expose() == one.bytes);
}

async fn listed(mut subject: Box<dyn Subject>) {
    let mut keys: Vec<String> = ["top", "app", "app/db", "app/deep/er/x", "app2/db"].map(str::to_owned).to_vec();
    // More than a page of any system that has pages.
    keys.extend((0..120).map(|number| format!("many/{number:03}")));
    keys.extend((0..20).map(|number| format!("folders/{number:02}/x")));
    subject.write_all(&keys, &Payload::text("one of many")).await;
    keys.sort();
    let store = Open::of(&*subject);
    assert_eq!(store.list(None).await.unwrap(), keys);
    assert_eq!(store.list(Some("app")).await.unwrap(), ["app/db", "app/deep/er/x"]);
    assert_eq!(store.list(Some("app/deep")).await.unwrap(), ["app/deep/er/x"]);
    assert_eq!(store.list(Some("many")).await.unwrap().len(), 120);
    assert_eq!(store.list(Some("ap")).await.unwrap(), [""; 0]);
    for key in store.list(None).await.unwrap() {
        store.found(&key, None).await;
    }
}

async fn nothing_listed(subject: Box<dyn Subject>) {
    let store = Open::of(&*subject);
    assert_eq!(store.list(None).await.unwrap(), [""; 0]);
    assert_eq!(store.list(Some("app")).await.unwrap(), [""; 0]);
}

async fn half_listed(mut subject: Box<dyn Subject>) {
    for key in ["a/x", "b/x", "z/x"] {
        subject.write(key, &Payload::text(key)).await;
    }
    subject.damage(Damage::OnePart).await;
    let store = Open::of(&*subject);
    let fault = store.list(None).await.unwrap_err();
    assert_eq!(fault.reason, Reason::ProviderUnavailable, "{fault}");
    assert_eq!(store.list(Some("a")).await.unwrap(), ["a/x"]);
    assert!(subject.mend().await);
    assert_eq!(store.list(None).await.unwrap(), ["a/x", "b/x", "z/x"]);
}

async fn thrifty(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    let store = Open::of(&*subject);
    let before = subject.traffic();
    for _ in 0..20 {
        store.found("app/db", None).await;
    }
    let after = subject.traffic();
    // Where a server sends head and body apart, the connection may not be back in its pool when the next read begins: a second one is
    // opened, and never a third.
    assert!((1..=2).contains(&(after.0 - before.0)), "{} connections", after.0 - before.0);
    assert_eq!(after.1 - before.1, 20);
}

async fn slow(mut subject: Box<dyn Subject>) {
    let written = subject.write("app/db", &Payload::text("one")).await;
    subject.damage(Damage::Slow).await;
    let store = Open::of(&*subject);
    assert!(store.found("app/db", None).await.value.expose() == written.bytes);
    assert_eq!(store.list(None).await.unwrap(), ["app/db"]);
}

/// Read, missing key and list are all unknown while something is wrong, for one reason and in the same words, and as before afterwards.
async fn broken(mut subject: Box<dyn Subject>, damage: Damage) {
    subject.write("app/db", &Payload::text("one")).await;
    Open::of(&*subject).found("app/db", None).await;
    subject.damage(damage).await;
    let store = Open::of(&*subject);
    for key in ["app/db", "app/none"] {
        let fault = store.unknown(key, None).await;
        judge(damage, &fault);
        assert_eq!(store.unknown(key, None).await, fault, "the message changes between attempts");
    }
    judge(damage, &store.list(None).await.unwrap_err());
    judge(damage, &store.list(Some("app")).await.unwrap_err());
    if subject.mend().await {
        let store = Open::of(&*subject);
        store.found("app/db", None).await;
        store.absent("app/none", None).await;
        assert_eq!(store.list(None).await.unwrap(), ["app/db"]);
    }
}

/// What the system itself said is either taken or not; it is never taken for something else.
async fn relabelled(mut subject: Box<dyn Subject>) {
    let written = subject.write("app/db", &Payload::text("one")).await;
    subject.damage(Damage::Relabelled).await;
    let store = Open::of(&*subject);
    match store.read("app/db", None).await {
        Reading::Found(found) => assert!(found.value.expose() == written.bytes),
        Reading::Unknown(fault) => judge(Damage::Relabelled, &fault),
        Reading::Absent(fault) => panic!("absent: {fault}"),
    }
    assert!(store.list(None).await.is_ok_and(|names| names == ["app/db"]) || store.list(None).await.is_err());
}

async fn endless_list(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    subject.damage(Damage::EndlessList).await;
    judge(Damage::EndlessList, &Open::of(&*subject).list(None).await.unwrap_err());
    assert!(subject.mend().await);
    assert_eq!(Open::of(&*subject).list(None).await.unwrap(), ["app/db"]);
}

fn judge(damage: Damage, fault: &Fault) {
    let allowed: &[(Class, Reason)] = match damage {
        Damage::Throttled(Hint::Seconds | Hint::Date) => &[(Class::Throttled { after: Some(Duration::from_secs(7)) }, Reason::Throttled)],
        Damage::Throttled(Hint::None | Hint::Nonsense) => &[(Class::Throttled { after: None }, Reason::Throttled)],
        Damage::Sealed => &[(Class::Unavailable, Reason::Sealed)],
        Damage::Denied => &[(Class::Denied, Reason::AccessDenied)],
        Damage::Expired => &[(Class::Denied, Reason::AccessDenied), (Class::Unavailable, Reason::StoreNotReady)],
        Damage::NoParent => &[
            (Class::Unavailable, Reason::ProviderUnavailable),
            (Class::Unavailable, Reason::StoreNotReady),
            (Class::Denied, Reason::AccessDenied),
        ],
        Damage::Oversized | Damage::Endless => &[(Class::Invalid, Reason::TooLarge)],
        Damage::EndlessList | Damage::Bomb | Damage::NestedBomb => {
            &[(Class::Invalid, Reason::TooLarge), (Class::Unavailable, Reason::ProviderUnavailable)]
        }
        _ => &[(Class::Unavailable, Reason::ProviderUnavailable)],
    };
    assert!(allowed.contains(&(fault.class, fault.reason)), "{damage:?}: {fault:?}");
    assert!(fault.detail.contains(": "), "{damage:?} without a remedy: {fault}");
}

async fn no_credential(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    subject.damage(Damage::NoCredential).await;
    let fault = match subject.open() {
        Err(fault) => fault,
        Ok(_) => Open::of(&*subject).unknown("app/db", None).await,
    };
    assert_eq!((fault.class, fault.reason), (Class::Unavailable, Reason::StoreNotReady), "{fault}");
}

async fn hinted(mut subject: Box<dyn Subject>) {
    subject.write("app/db", &Payload::text("one")).await;
    let store = Open::of(&*subject);
    store.found("app/db", None).await;
    let mut hints = store.backend.changes().expect("hints");
    let two = subject.write("app/db", &Payload::text("two")).await;
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, hints.next()).await.expect("a hint").expect("the hints go on");
    let found = store.found("app/db", None).await;
    assert!(found.value.expose() == two.bytes && found.version == two.told);
}

//! What an API server said: Secrets and ConfigMaps as maps of bytes, pages of metadata, events of a watch. Pure.
//!
//! Nothing but the buffers that are given here holds a value: they are read in place and written into one of the right size.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{failure::Failure, place::Resource};
use crate::{
    item::{Fetched, Form},
    secret::SecretValue,
};

/// One whole answer.
pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Zeroizing<Vec<u8>>,
}

/// What the server keeps under a name.
pub(super) enum Kept {
    Object(Fetched),
    Nothing,
}

/// What is looked at of an object without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub version: String,
    pub labels: BTreeMap<String, String>,
}

/// A page of metadata.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub version: String,
    pub objects: Vec<(String, Mark)>,
    /// Where the next page goes on.
    pub next: Option<String>,
}

/// An event of a watch, with the version from which another watch goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Seen(String, Mark),
    Gone(String, String),
    Bookmark(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

type Members<'a> = Option<BTreeMap<String, &'a RawValue>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    kind: String,
    metadata: Metadata,
    #[serde(borrow, default)]
    data: Members<'a>,
    #[serde(borrow, default)]
    binary_data: Members<'a>,
}

#[derive(Deserialize)]
struct Status {
    kind: String,
    reason: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    name: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct PartialObject {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct PartialList {
    kind: String,
    metadata: Metadata,
    /// An empty list is written as null.
    items: Option<Vec<PartialObject>>,
}

/// What every answer but the wanted one means.
pub(super) fn refusal(answer: &Answer) -> Failure {
    match answer.status {
        401 => Failure::Unauthenticated,
        403 => Failure::Denied,
        429 => Failure::Throttled { after: answer.retry_after },
        code @ 300..=399 => Failure::Redirect(code),
        code @ 500..=599 => Failure::Server(code),
        code @ (404 | 200..=299) => Failure::Malformed(code),
        code => Failure::Refused(code),
    }
}

/// The same of a list or watch, which may have to be begun anew.
pub(super) fn refusal_of_list(answer: &Answer) -> Failure {
    if answer.status == 410 { Failure::Outdated } else { refusal(answer) }
}

/// The object of that name, or the server's own word that there is none.
pub(super) fn object(answer: &Answer, resource: Resource, namespace: &str, name: &str) -> Result<Kept, Failure> {
    match answer.status {
        200 => found(&answer.body, resource, namespace, name).map(Kept::Object).ok_or(Failure::Malformed(200)),
        404 if is_missing(&answer.body, resource.plural(), name) => Ok(Kept::Nothing),
        _ => Err(refusal(answer)),
    }
}

fn found(body: &[u8], resource: Resource, namespace: &str, name: &str) -> Option<Fetched> {
    let object: Object<'_> = serde_json::from_slice(body).ok()?;
    let metadata = &object.metadata;
    let is_it =
        object.kind == resource.kind() && metadata.name.as_deref() == Some(name) && metadata.namespace.as_deref() == Some(namespace);
    let version = metadata.resource_version.clone().filter(|version| is_it && !version.is_empty())?;
    let (texts, bytes) = match resource {
        Resource::Secret => (None, object.data),
        Resource::ConfigMap => (object.data, object.binary_data),
    };
    let mut members = BTreeMap::new();
    for (key, node) in bytes.into_iter().flatten() {
        members.insert(key, Member::of_base64(node)?);
    }
    for (key, node) in texts.into_iter().flatten() {
        members.insert(key, Member::of_text(node)?);
    }
    Some(Fetched { value: document(&members)?, form: Form::Map, version: Some(version), is_secret: resource == Resource::Secret })
}

/// Labels and annotations of the object of that name, as a JSON object.
pub(super) fn beside(answer: &Answer, resource: Resource, namespace: &str, name: &str) -> Result<Kept, Failure> {
    match answer.status {
        200 => described(&answer.body, namespace, name).map(Kept::Object).ok_or(Failure::Malformed(200)),
        404 if is_missing(&answer.body, resource.plural(), name) => Ok(Kept::Nothing),
        _ => Err(refusal(answer)),
    }
}

/// `kubectl apply` leaves the whole object in an annotation, the value with it: that is no metadata.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn described(body: &[u8], namespace: &str, name: &str) -> Option<Fetched> {
    #[derive(Deserialize)]
    struct Described {
        kind: String,
        metadata: Metadata,
    }
    let Described { kind, metadata } = serde_json::from_slice(body).ok()?;
    let is_it =
        kind == "PartialObjectMetadata" && metadata.name.as_deref() == Some(name) && metadata.namespace.as_deref() == Some(namespace);
    let version = metadata.resource_version.filter(|version| is_it && !version.is_empty())?;
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let document = serde_json::json!({"annotations": annotations, "labels": metadata.labels.unwrap_or_default()});
    Some(Fetched { value: SecretValue::from(document.to_string()), form: Form::Whole, version: Some(version), is_secret: false })
}

fn is_missing(body: &[u8], plural: &str, name: &str) -> bool {
    let Ok(Status { kind, reason, details: Some(details) }) = serde_json::from_slice(body) else { return false };
    kind == "Status"
        && reason.as_deref() == Some("NotFound")
        && details.kind.as_deref() == Some(plural)
        && details.name.as_deref() == Some(name)
}

/// Whether the namespace is there to stay; an error when the answer is that of nobody who knows.
pub(super) fn namespace(answer: &Answer, name: &str) -> Result<bool, Failure> {
    match answer.status {
        200 => {
            let seen: Object<'_> = serde_json::from_slice(&answer.body).map_err(|_| Failure::Malformed(200))?;
            if seen.kind != "Namespace" || seen.metadata.name.as_deref() != Some(name) {
                return Err(Failure::Malformed(200));
            }
            Ok(seen.metadata.deletion_timestamp.is_none())
        }
        404 if is_missing(&answer.body, "namespaces", name) => Ok(false),
        _ => Err(refusal(answer)),
    }
}

/// The answer of an access review.
pub(super) fn is_allowed(answer: &Answer) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Review {
        kind: String,
        status: Verdict,
    }
    #[derive(Deserialize)]
    struct Verdict {
        allowed: bool,
    }
    if !matches!(answer.status, 200 | 201) {
        return Err(refusal(answer));
    }
    let review: Option<Review> = serde_json::from_slice(&answer.body).ok();
    let review = review.filter(|review| review.kind == "SelfSubjectAccessReview").ok_or(Failure::Malformed(answer.status))?;
    Ok(review.status.allowed)
}

/// A page of a list of metadata.
pub(super) fn page(answer: &Answer) -> Result<Page, Failure> {
    if answer.status != 200 {
        return Err(refusal_of_list(answer));
    }
    let malformed = || Failure::Malformed(200);
    let list: PartialList = serde_json::from_slice(&answer.body).map_err(|_| malformed())?;
    if list.kind != "PartialObjectMetadataList" {
        return Err(malformed());
    }
    let version = list.metadata.resource_version.filter(|version| !version.is_empty()).ok_or_else(malformed)?;
    let objects = list.items.into_iter().flatten().map(|item| mark(item.metadata).ok_or_else(malformed)).collect::<Result<_, _>>()?;
    Ok(Page { version, objects, next: list.metadata.next.filter(|next| !next.is_empty()) })
}

fn mark(metadata: Metadata) -> Option<(String, Mark)> {
    Some((metadata.name?, Mark { version: metadata.resource_version?, labels: metadata.labels.unwrap_or_default() }))
}

/// One line of a watch.
pub(super) fn event(line: &[u8]) -> Result<Event, Failure> {
    #[derive(Deserialize)]
    struct Line {
        r#type: String,
        object: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        metadata: Option<Metadata>,
        code: Option<u16>,
    }
    let malformed = || Failure::Malformed(200);
    let Line { r#type, object } = serde_json::from_slice(line).map_err(|_| malformed())?;
    if r#type == "ERROR" {
        return Err(match object.code {
            Some(code) => refusal_of_list(&Answer { status: code, retry_after: None, body: Zeroizing::default() }),
            None => malformed(),
        });
    }
    let metadata = object.metadata.ok_or_else(malformed)?;
    if r#type == "BOOKMARK" {
        return metadata.resource_version.map(Event::Bookmark).ok_or_else(malformed);
    }
    let (name, mark) = mark(metadata).ok_or_else(malformed)?;
    match r#type.as_str() {
        "ADDED" | "MODIFIED" => Ok(Event::Seen(name, mark)),
        "DELETED" => Ok(Event::Gone(name, mark.version)),
        _ => Err(malformed()),
    }
}

/// One value of a map, on its way from one JSON text into another.
enum Member<'a> {
    /// A string as the server wrote it.
    Written(&'a RawValue),
    Text(Zeroizing<String>),
    /// Bytes that are no text, as base64.
    Bytes(&'a str),
}

impl<'a> Member<'a> {
    fn of_text(node: &'a RawValue) -> Option<Self> {
        node.get().starts_with('"').then_some(Self::Written(node))
    }

    fn of_base64(node: &'a RawValue) -> Option<Self> {
        let base64 = node.get().strip_prefix('"')?.strip_suffix('"')?;
        let mut bytes = Zeroizing::new(BASE64_STANDARD.decode(base64).ok()?);
        match String::from_utf8(std::mem::take(&mut *bytes)) {
            Ok(text) => Some(Self::Text(Zeroizing::new(text))),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                Some(Self::Bytes(base64))
            }
        }
    }

    /// Bytes that it takes in the document.
    fn len(&self) -> usize {
        match self {
            Self::Written(node) => node.get().len(),
            Self::Text(text) => {
                2 + text.chars().map(|character| escape(character).map_or(character.len_utf8(), |text| text.len())).sum::<usize>()
            }
            Self::Bytes(base64) => base64.len() + r#"{"base64":""}"#.len(),
        }
    }

    fn write(&self, document: &mut String) {
        match self {
            Self::Written(node) => document.push_str(node.get()),
            Self::Text(text) => push_string(document, text),
            Self::Bytes(base64) => {
                document.push_str(r#"{"base64":""#);
                document.push_str(base64);
                document.push_str(r#""}"#);
            }
        }
    }
}

/// The map as [`Form::Map`] spells it, in the order of its keys, in one buffer that never grows. None for keys that are none of
/// Kubernetes: they would need escapes.
fn document(members: &BTreeMap<String, Member<'_>>) -> Option<SecretValue> {
    let is_key =
        |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !members.keys().all(is_key) {
        return None;
    }
    let length: usize = members.iter().map(|(key, member)| key.len() + member.len() + r#""":,"#.len()).sum();
    let mut document = Zeroizing::new(String::with_capacity(length + 2));
    document.push('{');
    for (at, (key, member)) in members.iter().enumerate() {
        if at > 0 {
            document.push(',');
        }
        push_string(&mut document, key);
        document.push(':');
        member.write(&mut document);
    }
    document.push('}');
    Some(SecretValue::from(std::mem::take(&mut *document)))
}

fn push_string(document: &mut String, text: &str) {
    document.push('"');
    for character in text.chars() {
        match escape(character) {
            Some(escaped) => document.push_str(&escaped),
            None => document.push(character),
        }
    }
    document.push('"');
}

/// What JSON writes for a character that cannot stand in a string.
fn escape(character: char) -> Option<String> {
    match character {
        '"' => Some(r#"\""#.to_owned()),
        '\\' => Some(r"\\".to_owned()),
        '\n' => Some(r"\n".to_owned()),
        '\r' => Some(r"\r".to_owned()),
        '\t' => Some(r"\t".to_owned()),
        '\0'..='\u{1f}' => Some(format!("\\u{:04x}", u32::from(character))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use zeroize::Zeroizing;

    use super::{Answer, Event, Failure, Kept, Mark, event, object, page};
    use crate::{backend::kubernetes::place::Resource, item::Form};

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, retry_after: None, body: Zeroizing::new(body.as_bytes().to_vec()) }
    }

    fn read(resource: Resource, body: &str) -> Result<String, Failure> {
        match object(&answer(200, body), resource, "team", "db")? {
            Kept::Object(found) => {
                assert_eq!((found.form, found.version.as_deref()), (Form::Map, Some("7")));
                assert_eq!(found.is_secret, resource == Resource::Secret, "the kind is the mark");
                Ok(String::from_utf8(found.value.expose().to_vec()).unwrap())
            }
            Kept::Nothing => unreachable!("200 is something"),
        }
    }

    #[test]
    fn a_map_is_told_in_the_order_of_its_keys_and_bytes_that_are_no_text_apart() {
        let metadata = r#""metadata":{"name":"db","namespace":"team","resourceVersion":"7"}"#;
        let cases = [
            (Resource::Secret, format!(r#"{{"kind":"Secret",{metadata}}}"#), "{}"),
            (Resource::Secret, format!(r#"{{"kind":"Secret",{metadata},"data":null}}"#), "{}"),
            (
                Resource::Secret,
                format!(r#"{{"kind":"Secret",{metadata},"data":{{"b":"w6kgIiBcIAo=","a":"","c":"AP8=","d":"AQ=="}}}}"#),
                r#"{"a":"","b":"é \" \\ \n","c":{"base64":"AP8="},"d":"\u0001"}"#,
            ),
            (
                Resource::ConfigMap,
                format!(r#"{{"kind":"ConfigMap",{metadata},"data":{{"b":"x\u003c\"y"}},"binaryData":{{"a":"/w==","c":"eg=="}}}}"#),
                r#"{"a":{"base64":"/w=="},"b":"x\u003c\"y","c":"z"}"#,
            ),
        ];
        for (resource, body, expected) in cases {
            assert_eq!(read(resource, &body).as_deref(), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_not_the_object_that_was_asked_for_is_no_answer() {
        let of = |kind: &str, name: &str, namespace: &str, version: &str, data: &str| {
            format!(
                r#"{{"kind":"{kind}","metadata":{{"name":"{name}","namespace":"{namespace}","resourceVersion":"{version}"}},"data":{data}}}"#
            )
        };
        let cases = [
            of("ConfigMap", "db", "team", "7", "{}"),
            of("Secret", "other", "team", "7", "{}"),
            of("Secret", "db", "elsewhere", "7", "{}"),
            of("Secret", "db", "team", "", "{}"),
            of("Secret", "db", "team", "7", r#"{"a":1}"#),
            of("Secret", "db", "team", "7", r#"{"a":"no base64"}"#),
            of("Secret", "db", "team", "7", r#"{"a b":""}"#),
            of("Secret", "db", "team", "7", "[]"),
            String::new(),
            "null".to_owned(),
            "<html>".to_owned(),
        ];
        for body in cases {
            assert_eq!(read(Resource::Secret, &body), Err(Failure::Malformed(200)), "{body}");
        }
    }

    #[test]
    fn only_the_servers_own_word_about_this_name_is_absence() {
        let status = |kind: &str, name: &str, reason: &str| {
            format!(r#"{{"kind":"Status","reason":"{reason}","details":{{"kind":"{kind}","name":"{name}"}},"code":404}}"#)
        };
        let of = |code: u16, body: &str| match object(&answer(code, body), Resource::Secret, "team", "db") {
            Ok(Kept::Nothing) => Ok(()),
            Ok(Kept::Object(_)) => unreachable!("no 200"),
            Err(failure) => Err(failure),
        };
        let missing = status("secrets", "db", "NotFound");
        assert_eq!(of(404, &missing), Ok(()));
        let malformed = Err(Failure::Malformed(404));
        for body in [
            status("secrets", "other", "NotFound"),
            status("configmaps", "db", "NotFound"),
            status("secrets", "db", "Gone"),
            r#"{"kind":"Status","reason":"NotFound"}"#.to_owned(),
            "404 page not found".to_owned(),
            String::new(),
        ] {
            assert_eq!(of(404, &body), malformed, "{body}");
        }
        let cases = [
            (401, Failure::Unauthenticated),
            (403, Failure::Denied),
            (429, Failure::Throttled { after: None }),
            (302, Failure::Redirect(302)),
            (400, Failure::Refused(400)),
            // A list may be too old to be gone on with, an object is not.
            (410, Failure::Refused(410)),
            (500, Failure::Server(500)),
            (204, Failure::Malformed(204)),
        ];
        for (code, expected) in cases {
            assert_eq!(of(code, &missing), Err(expected), "{code}");
        }
    }

    #[test]
    fn a_page_is_whole_or_none() {
        let body = r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"9","continue":"x"},
            "items":[{"metadata":{"name":"a","resourceVersion":"3","labels":{"l":"v"}}},{"metadata":{"name":"b","resourceVersion":"4"}}]}"#;
        let seen = page(&answer(200, body)).unwrap();
        assert_eq!((seen.version.as_str(), seen.next.as_deref(), seen.objects.len()), ("9", Some("x"), 2));
        assert_eq!(seen.objects[0], ("a".to_owned(), Mark { version: "3".to_owned(), labels: [("l".to_owned(), "v".to_owned())].into() }));
        let empty = r#"{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"9"},"items":null}"#;
        assert_eq!(page(&answer(200, empty)), Ok(super::Page { version: "9".to_owned(), objects: Vec::new(), next: None }));
        for body in [
            body.replace("PartialObjectMetadataList", "SecretList"),
            body.replace(r#""resourceVersion":"9","#, ""),
            body.replace(r#""name":"b","#, ""),
            body[..body.len() - 1].to_owned(),
        ] {
            assert_eq!(page(&answer(200, &body)), Err(Failure::Malformed(200)), "{body}");
        }
        assert_eq!(page(&answer(403, "")), Err(Failure::Denied));
        assert_eq!(page(&answer(410, "")), Err(Failure::Outdated));
    }

    #[test]
    fn events_of_a_watch_are_told_apart() {
        let of =
            |kind: &str| event(format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"a","resourceVersion":"5"}}}}}}"#).as_bytes());
        let mark = Mark { version: "5".to_owned(), labels: BTreeMap::new() };
        assert_eq!(of("ADDED"), Ok(Event::Seen("a".to_owned(), mark.clone())));
        assert_eq!(of("MODIFIED"), Ok(Event::Seen("a".to_owned(), mark)));
        assert_eq!(of("DELETED"), Ok(Event::Gone("a".to_owned(), "5".to_owned())));
        assert_eq!(of("BOOKMARK"), Ok(Event::Bookmark("5".to_owned())));
        assert_eq!(of("OTHER"), Err(Failure::Malformed(200)));
        assert_eq!(event(br#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#), Err(Failure::Outdated));
        assert_eq!(event(br#"{"type":"ERROR","object":{"kind":"Status","code":500}}"#), Err(Failure::Server(500)));
        assert_eq!(event(br#"{"type":"ADDED","object":{}}"#), Err(Failure::Malformed(200)));
        assert_eq!(event(b"{"), Err(Failure::Malformed(200)));
    }
}

//! What a backend is, as rows that every backend passes against its real server, through the library as the operator uses it.
//!
//! A row is run for each backend and is red unless it holds. A cell is left out only where the system itself lacks the thing:
//! `EXEMPTIONS` has each with its reason, and the matrix prints them.

mod aws;
pub mod kubernetes;
mod memory;
mod rows;
mod sealed_file;
mod subject;
mod tree;
mod vault;
mod vault_write;
mod wire;

use std::{collections::BTreeSet, fmt::Write as _, io::Write as _, sync::Arc, time::Duration};

use crate::backends::{aws::admin::Service, moto::Moto, openbao::OpenBao};
use rows::{ON_THE_WIRE, ROWS, Row};
use subject::Subject;

const BACKENDS: &[&str] = &["vault", "aws-sm", "aws-ssm", "kubernetes", "file", "tree", "env", "fake"];
/// Those with a network between store and reader: only they pass the rows on the wire.
const NETWORKED: &[&str] = &["vault", "aws-sm", "aws-ssm", "kubernetes"];

const NO_BYTES: &str =
    "holds JSON and no bytes (developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2, \"data\"): binary values are text to it";
const MANIFEST_TEXT: &str = "a manifest holds text";
const MANIFEST_BOUND: &str = "the schema bounds a value of a manifest to 64 KiB";
const VARIABLE_BOUND: &str = "Linux bounds one variable to 128 KiB";
const VARIABLE_NAMES: &str = "a portable variable's name has letters, digits and _ only, and other keys are refused";
const NO_VERSIONS: &str = "variables and plain files have no versions";
const NO_STATUS: &str = "keeps no status and no expiry beside a value";
const NO_TWINS: &str = "a file system has no file and folder of one name";
const NO_FORM: &str = "any bytes are a plain file";
const NO_DELETION_MARK: &str = "knows no deletion that can be taken back";
const SOFT_ONLY: &str = "has soft deletion only: a name stays for ever";
const NO_DESTRUCTION: &str = "destroys no single version";
const FIXED: &str = "is fixed when the store is opened";
const NO_SERVER: &str = "has no server and no network";
const NO_IDENTITIES: &str = "tells no identities apart: who may open it may read it";
const NO_CREDENTIAL: &str = "needs no credential";
const NO_PARTS: &str = "is in the operator's memory and cannot be damaged or lost by itself";
const ONE_PIECE: &str = "gives a list in one piece";
const NO_HINTS: &str = "gives no hints: it is polled";

const NO_FOLDERS: &str = "names of objects have no folders (kubernetes.io/docs/concepts/overview/working-with-objects/names)";
const OBJECT_NAMES: &str = "a name has lower-case letters, digits, - and . only (the same page), and other keys are refused";
const ONE_VERSION: &str = "keeps the current version of an object only";
const DELETED_IS_GONE: &str = "a deleted object is gone";
const WHOLE_PAGES: &str = "lists in pages of 500, and a page is one answer";
const NO_SEAL: &str = "knows no sealed state";
const ONE_ENGINE: &str = "has one API at this place";

const NO_EMPTY: &str = "a secret has at least one byte (docs.aws.amazon.com/secretsmanager/latest/apireference, CreateSecret)";
const MOST_65536: &str = "a secret has at most 65,536 bytes (the same page)";
const SECRET_NAMES: &str = "a name has letters, digits and /_+=.@- only (the same page)";
const WHOLE_SECRETS: &str = "deletes a secret with all its versions, and no single one";
const PAGES_OF_100: &str = "lists in pages of 100, and a page is one answer";
const NO_PARENT: &str = "folders are a part of a name";

const NO_EMPTY_PARAMETER: &str =
    "a parameter has at least one character (docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html)";
const PARAMETER_TEXT: &str = "a parameter is text (docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html)";
const MOST_8192: &str = "a parameter has at most 8 KB (the same page, \"Value\")";
const PARAMETER_NAMES: &str = "a name has letters, digits and _.-/ only (the same page, \"Name\")";
const DELETED_PARAMETER: &str = "a deleted parameter is gone, with all its versions (the same reference, DeleteParameter)";
const PAGES_OF_50: &str = "lists in pages of 50, and a page is one answer";

const AWS: &[&str] = &["aws-sm", "aws-ssm"];
const OFFLINE: &[&str] = &["file", "tree", "env", "fake"];
const UNMARKED: &[&str] = &["tree", "env", "fake"];
const WITHOUT_VERSIONS: &[&str] = &["tree", "env"];
const WITHOUT_METADATA: &[&str] = &["vault", "kubernetes", "tree", "env", "fake"];
const IN_MEMORY: &[&str] = &["env", "fake"];

/// (row, backends, why the systems themselves lack what the row is about).
const EXEMPTIONS: &[(&str, &[&str], &str)] = &[
    ("a binary value is found with its exact bytes", &["vault"], NO_BYTES),
    ("a binary value is found with its exact bytes", &["fake"], MANIFEST_TEXT),
    ("a value of 1 MiB is found", &["env"], VARIABLE_BOUND),
    ("a value of 1 MiB is found", &["fake"], MANIFEST_BOUND),
    ("keys with spaces, marks and all scripts are one key each", &["env"], VARIABLE_NAMES),
    ("a version is pinned, and one that is not there is absent", WITHOUT_VERSIONS, NO_VERSIONS),
    ("a new version is seen by a store that is open", IN_MEMORY, FIXED),
    ("a removed key is absent again", &["file"], SOFT_ONLY),
    ("a softly deleted value is Deleted until it is undeleted", UNMARKED, NO_DELETION_MARK),
    ("a disabled value is Disabled until it is enabled", WITHOUT_METADATA, NO_STATUS),
    ("an expired value is Expired", WITHOUT_METADATA, NO_STATUS),
    ("a list names every key below its path, at all depths", &["tree"], NO_TWINS),
    ("a destroyed version is Destroyed", OFFLINE, NO_DESTRUCTION),
    ("a list that fails in one part fails", OFFLINE, ONE_PIECE),
    ("a truncated answer is unknown", IN_MEMORY, NO_PARTS),
    ("a malformed answer is unknown", IN_MEMORY, NO_PARTS),
    ("a truncated answer is unknown", &["tree"], NO_FORM),
    ("a malformed answer is unknown", &["tree"], NO_FORM),
    ("a sealed server is Sealed", OFFLINE, NO_SERVER),
    ("what the identity may not read is denied, there or not", OFFLINE, NO_IDENTITIES),
    ("an expired credential is never absence", UNMARKED, NO_CREDENTIAL),
    ("a missing credential says what to do", UNMARKED, NO_CREDENTIAL),
    ("without its parent nothing is absent", IN_MEMORY, NO_PARTS),
    ("another engine in its place is no absence", OFFLINE, NO_SERVER),
    ("keys with spaces, marks and all scripts are one key each", &["kubernetes"], OBJECT_NAMES),
    ("a version is pinned, and one that is not there is absent", &["kubernetes"], ONE_VERSION),
    ("a softly deleted value is Deleted until it is undeleted", &["kubernetes"], DELETED_IS_GONE),
    ("a destroyed version is Destroyed", &["kubernetes"], ONE_VERSION),
    ("a list names every key below its path, at all depths", &["kubernetes"], NO_FOLDERS),
    ("a list that fails in one part fails", &["kubernetes"], WHOLE_PAGES),
    ("a sealed server is Sealed", &["kubernetes"], NO_SEAL),
    ("another engine in its place is no absence", &["kubernetes"], ONE_ENGINE),
    ("a change is hinted at", &["vault", "aws-sm", "aws-ssm", "env", "fake"], NO_HINTS),
    ("an empty value is found, not absent", &["aws-sm"], NO_EMPTY),
    ("a value of 1 MiB is found", &["aws-sm"], MOST_65536),
    ("keys with spaces, marks and all scripts are one key each", &["aws-sm"], SECRET_NAMES),
    ("a softly deleted value is Deleted until it is undeleted", &["aws-sm"], WHOLE_SECRETS),
    ("a destroyed version is Destroyed", &["aws-sm"], WHOLE_SECRETS),
    ("a disabled value is Disabled until it is enabled", AWS, NO_STATUS),
    ("an expired value is Expired", AWS, NO_STATUS),
    ("a list that fails in one part fails", &["aws-sm"], PAGES_OF_100),
    ("a sealed server is Sealed", AWS, NO_SEAL),
    ("without its parent nothing is absent", &["aws-sm"], NO_PARENT),
    ("another engine in its place is no absence", AWS, ONE_ENGINE),
    ("an empty value is found, not absent", &["aws-ssm"], NO_EMPTY_PARAMETER),
    ("a binary value is found with its exact bytes", &["aws-ssm"], PARAMETER_TEXT),
    ("a value of 64 KiB is found", &["aws-ssm"], MOST_8192),
    ("a value of 1 MiB is found", &["aws-ssm"], MOST_8192),
    ("keys with spaces, marks and all scripts are one key each", &["aws-ssm"], PARAMETER_NAMES),
    ("a softly deleted value is Deleted until it is undeleted", &["aws-ssm"], DELETED_PARAMETER),
    ("a destroyed version is Destroyed", &["aws-ssm"], DELETED_PARAMETER),
    ("a list that fails in one part fails", &["aws-ssm"], PAGES_OF_50),
    ("without its parent nothing is absent", &["aws-ssm"], NO_PARENT),
];

/// A cell that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(180);

/// One of each for all rows.
struct Servers {
    bao: Arc<OpenBao>,
    moto: Arc<Moto>,
    api_server: Arc<kubernetes::ApiServer>,
}

enum Cell {
    Holds,
    Broken(String),
    Exempt,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_backend_keeps_the_contract() {
    let servers = Servers {
        bao: Arc::new(OpenBao::start().await),
        moto: Arc::new(Moto::start().await),
        api_server: Arc::new(kubernetes::ApiServer::start().await),
    };
    let mut cells = Vec::new();
    for row in all_rows() {
        for backend in BACKENDS {
            cells.push((row.name, *backend, cell(&servers, row, backend).await));
        }
    }
    // Past the capture of a test that passes: the matrix is part of the result.
    let _ = writeln!(std::io::stderr(), "{}", matrix(&cells));
    let broken: Vec<String> = cells
        .iter()
        .filter_map(|(row, backend, cell)| match cell {
            Cell::Broken(why) => Some(format!("{backend}: {row}: {why}")),
            Cell::Holds | Cell::Exempt => None,
        })
        .collect();
    servers.api_server.finish().await;
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// An exemption for a row or backend that is no more would hide the next one of that name.
#[test]
fn each_exemption_is_for_a_cell_that_there_is() {
    let rows: BTreeSet<&str> = all_rows().map(|row| row.name).collect();
    assert_eq!(rows.len(), all_rows().count(), "two rows have one name");
    let mut seen = BTreeSet::new();
    for (row, backends, why) in EXEMPTIONS {
        for backend in *backends {
            assert!(rows.contains(row) && BACKENDS.contains(backend), "{row}, {backend}");
            assert!(seen.insert((row, backend)) && !why.is_empty(), "{row}, {backend}");
            assert!(NETWORKED.contains(backend) || ROWS.iter().any(|known| known.name == *row), "{row} is exempt for {backend} twice");
        }
    }
    for row in all_rows() {
        assert!(BACKENDS.iter().any(|backend| !is_exempt(row, backend)), "nobody passes {}", row.name);
    }
}

fn all_rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().chain(ON_THE_WIRE)
}

fn is_exempt(row: &Row, backend: &str) -> bool {
    let is_on_the_wire = ON_THE_WIRE.iter().any(|known| known.name == row.name);
    let has_no_wire = is_on_the_wire && !NETWORKED.contains(&backend);
    has_no_wire || EXEMPTIONS.iter().any(|(of, whose, _)| *of == row.name && whose.contains(&backend))
}

/// Each cell has a store of its own; one that panics breaks no other.
async fn cell(servers: &Servers, row: &Row, backend: &str) -> Cell {
    if is_exempt(row, backend) {
        return Cell::Exempt;
    }
    let subject: Box<dyn Subject> = match backend {
        "vault" => Box::new(vault::Vault::start(servers.bao.clone()).await),
        "aws-sm" => Box::new(aws::Aws::start(servers.moto.clone(), Service::SecretsManager).await),
        "aws-ssm" => Box::new(aws::Aws::start(servers.moto.clone(), Service::Ssm).await),
        "kubernetes" => Box::new(kubernetes::Kubernetes::start(servers.api_server.clone()).await),
        "file" => Box::new(sealed_file::SealedFile::create()),
        "tree" => Box::new(tree::Tree::create()),
        "env" => Box::new(memory::Env::default()),
        "fake" => Box::new(memory::Fake::default()),
        other => unreachable!("no subject for {other}"),
    };
    match tokio::spawn(tokio::time::timeout(PATIENCE, (row.run)(subject))).await {
        Ok(Ok(())) => Cell::Holds,
        Ok(Err(_)) => Cell::Broken("did not end".to_owned()),
        Err(error) => Cell::Broken(said(error)),
    }
}

fn said(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "was cancelled".to_owned() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

fn matrix(cells: &[(&str, &str, Cell)]) -> String {
    let mut text = String::from("\nThe contract: + holds, - broken, n/a the system lacks the thing\n");
    for column in BACKENDS {
        write!(text, "{column:>11}").unwrap();
    }
    for (row, backend, cell) in cells {
        if backend == &BACKENDS[0] {
            text.push('\n');
        }
        let mark = match cell {
            Cell::Holds => "+",
            Cell::Broken(_) => "-",
            Cell::Exempt => "n/a",
        };
        write!(text, "{mark:>11}").unwrap();
        if backend == &BACKENDS[BACKENDS.len() - 1] {
            write!(text, "  {row}").unwrap();
        }
    }
    let others: Vec<&str> = BACKENDS.iter().filter(|backend| !NETWORKED.contains(backend)).copied().collect();
    write!(text, "\n  n/a {}: every row from {:?} on: {NO_SERVER}", others.join(", "), ON_THE_WIRE[0].name).unwrap();
    for (row, backends, why) in EXEMPTIONS {
        write!(text, "\n  n/a {}: {row}: {why}", backends.join(", ")).unwrap();
    }
    text
}

//! Everything that the server keeps: accounts with their regions, identities, and what a test set.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::failure::{Failure, Result};
use super::gate::{Caller, Gate};
use super::identity::Identities;
use super::parameters::Parameter;
use super::secrets::Secret;

/// The account that is meant where a test names none.
pub const ACCOUNT: &str = "123456789012";

#[derive(Default)]
pub struct World {
    places: HashMap<(String, String), Place>,
    pub gate: Gate,
    pub identities: Identities,
    /// Functions that rotate, by ARN.
    pub rotators: Vec<String>,
    /// How far the server's clock is ahead.
    pub clock: SignedDuration,
    /// Where this server is; none for a server of all regions.
    pub only_region: Option<String>,
    /// Answers that are given instead of the next calls of an operation.
    pub planned: Vec<Planned>,
    serial: u64,
}

/// What is kept in one region of one account.
#[derive(Default)]
pub struct Place {
    pub secrets: BTreeMap<String, Secret>,
    pub parameters: BTreeMap<String, Parameter>,
}

/// A failure that the next so many calls of an operation get.
pub struct Planned {
    /// `GetSecretValue`; `*` for any
    pub operation: String,
    pub left: u32,
    pub failure: Failure,
}

/// One call, apart from its input.
pub struct Ask<'a> {
    pub caller: &'a Caller,
    pub region: &'a str,
    pub operation: &'a str,
}

impl World {
    pub fn now(&self) -> Timestamp {
        Timestamp::now() + self.clock
    }

    pub fn place(&mut self, account: &str, region: &str) -> &mut Place {
        self.places.entry((account.to_owned(), region.to_owned())).or_default()
    }

    /// The failure that is planned for this call, and counts it.
    pub fn take_planned(&mut self, operation: &str) -> Result<()> {
        let Some(planned) =
            self.planned.iter_mut().find(|planned| planned.left > 0 && ["*", operation].contains(&planned.operation.as_str()))
        else {
            return Ok(());
        };
        planned.left -= 1;
        Err(planned.failure.clone())
    }

    /// Never the same twice.
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Another one each time, in the form of a version or request id.
    pub fn uuid(&mut self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.next_serial())
    }
}

/// `aws-cn` and `aws-us-gov` are partitions of their own.
pub fn partition(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
        Some("eusc") => "aws-eusc",
        _ => "aws",
    }
}

/// As both protocols of JSON write a time.
pub fn seconds(time: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
    let milliseconds = time.as_millisecond() as f64;
    milliseconds / 1000.0
}

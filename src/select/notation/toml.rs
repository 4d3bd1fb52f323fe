//! TOML as JSON. Dates and times are strings, as they are written.

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::Sink;
use crate::select::json::Flaw;

pub(super) fn read(text: &str) -> Result<Zeroizing<String>, Flaw> {
    let table = DeTable::parse(text).map_err(|_| Flaw::NotToml)?;
    let mut json = Sink::beside(text);
    write_table(&mut json, table.get_ref())?;
    Ok(json.0)
}

fn write_table(json: &mut Sink, table: &DeTable<'_>) -> Result<(), Flaw> {
    json.push("{")?;
    for (index, (key, value)) in table.iter().enumerate() {
        json.push(if index == 0 { "" } else { "," })?;
        json.string(key.get_ref())?;
        json.push(":")?;
        write(json, value.get_ref())?;
    }
    json.push("}")
}

/// The parser bounds how deep a document is nested.
fn write(json: &mut Sink, value: &DeValue<'_>) -> Result<(), Flaw> {
    match value {
        DeValue::String(text) => json.string(text),
        DeValue::Integer(number) if number.radix() == 10 => json.number(unsigned(number.as_str())),
        DeValue::Integer(number) => json.string(&Zeroizing::new(number.to_string())),
        DeValue::Float(number) => json.number(unsigned(number.as_str())),
        DeValue::Boolean(truth) => json.push(if *truth { "true" } else { "false" }),
        DeValue::Datetime(moment) => json.string(&Zeroizing::new(moment.to_string())),
        DeValue::Table(table) => write_table(json, table),
        DeValue::Array(array) => {
            json.push("[")?;
            for (index, element) in array.iter().enumerate() {
                json.push(if index == 0 { "" } else { "," })?;
                write(json, element.get_ref())?;
            }
            json.push("]")
        }
    }
}

/// JSON has no plus sign.
fn unsigned(number: &str) -> &str {
    number.strip_prefix('+').unwrap_or(number)
}

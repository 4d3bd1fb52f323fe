//! .env files as SOPS reads them: what stands behind `=` is the value, with its quotes; `\n` in it is a line break.

use crate::backend::file::tree::sops::{Flaw, document::Node, metadata::Fields, sink::Sink};

/// Begins the names under which SOPS writes about the file.
const ABOUT: &str = "sops_";

pub fn read(text: &str) -> Result<(Node, Fields), Flaw> {
    let (mut members, mut fields) = (Vec::new(), Fields::new());
    for line in text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').ok_or(Flaw::Damaged("a line is no NAME=value"))?;
        let value = value.replace("\\n", "\n");
        match name.strip_prefix(ABOUT) {
            Some(name) => {
                fields.insert(name.to_owned(), value);
            }
            None => members.push((name.to_owned(), Node::text(&value))),
        }
    }
    Ok((Node::Map(members), fields))
}

pub fn write(members: &[(String, Node)], sink: &mut Sink) -> Result<(), Flaw> {
    for (name, member) in members {
        let Node::Scalar(value) = member else { return Err(Flaw::Damaged("a value")) };
        sink.push(name.as_bytes())?;
        sink.push(b"=")?;
        for (index, line) in value.text.split(|byte| *byte == b'\n').enumerate() {
            sink.push(if index == 0 { b"" } else { b"\\n" })?;
            sink.push(line)?;
        }
        sink.push(b"\n")?;
    }
    Ok(())
}

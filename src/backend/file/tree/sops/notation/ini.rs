//! INI files as SOPS writes them: sections of names and values, a long value in quotes.

use crate::backend::file::tree::sops::{Flaw, document::Node, sink::Sink};

const WRONG: Flaw = Flaw::Damaged("it is no valid INI file");
/// The section of what stands before the first one.
const DEFAULT: &str = "DEFAULT";

pub fn read(text: &str) -> Result<Node, Flaw> {
    let mut sections: Vec<(String, Vec<(String, Node)>)> = vec![(DEFAULT.to_owned(), Vec::new())];
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            sections.push((name.strip_suffix(']').ok_or(WRONG)?.trim().to_owned(), Vec::new()));
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(WRONG)?;
        let section = sections.last_mut().ok_or(WRONG)?;
        let value = unquoted(value.trim());
        // SOPS writes line breaks in what it says about the file as `\n`.
        let value = if section.0 == "sops" { value.replace("\\n", "\n") } else { value.to_owned() };
        section.1.push((name.trim().to_owned(), Node::text(&value)));
    }
    Ok(Node::Map(sections.into_iter().map(|(name, members)| (name, Node::Map(members))).collect()))
}

fn unquoted(value: &str) -> &str {
    let inner = |quote: &str| value.strip_prefix(quote)?.strip_suffix(quote);
    inner("\"\"\"").or_else(|| inner("`")).or_else(|| inner("\"")).unwrap_or(value)
}

pub fn write(sections: &[(String, Node)], sink: &mut Sink) -> Result<(), Flaw> {
    for (name, section) in sections {
        let Node::Map(members) = section else { return Err(Flaw::Damaged("a value")) };
        if members.is_empty() {
            continue;
        }
        for part in ["[", name, "]\n"] {
            sink.push(part.as_bytes())?;
        }
        for (name, member) in members {
            let Node::Scalar(value) = member else { return Err(Flaw::Damaged("a value")) };
            sink.push(name.as_bytes())?;
            sink.push(b" = ")?;
            sink.push(&value.text)?;
            sink.push(b"\n")?;
        }
    }
    Ok(())
}

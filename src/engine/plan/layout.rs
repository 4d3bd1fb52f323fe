//! In what form an object wants its target. Pure.

use crate::{
    crd::v1alpha1::{ParameterFormat, Sensitivity, SyncObject},
    engine::resolve::Request,
    select::{Document, Layout, Syntax},
};

/// The form of the request's target.
pub(super) fn layout(request: &Request) -> Layout<'_> {
    let SyncObject::Parameter(object) = &request.object else { return Layout::keys(request.target.kind) };
    let target = object.spec.target.as_ref();
    let document = |syntax, default| Document {
        syntax,
        file: target.and_then(|target| target.file_name.as_deref()).unwrap_or(default),
        separator: target.and_then(|target| target.separator.as_deref()),
    };
    Layout {
        kind: request.target.kind,
        trim: target.and_then(|target| target.trim_prefix.as_deref()),
        document: match target.and_then(|target| target.format).unwrap_or_default() {
            ParameterFormat::Keys => None,
            ParameterFormat::Json => Some(document(Syntax::Json, "config.json")),
            ParameterFormat::Yaml => Some(document(Syntax::Yaml, "config.yaml")),
        },
        refuses_secrets: object.spec.sensitivity.unwrap_or_default() == Sensitivity::Refuse,
    }
}

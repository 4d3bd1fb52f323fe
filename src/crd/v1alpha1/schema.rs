//! Schemas of Kubernetes' own types, with the bounds that Kubernetes applies elsewhere.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A label's key: prefix, slash, name.
const LABEL_KEY: usize = 317;
/// A label's value.
const LABEL_VALUE: usize = 63;

/// A `LabelSelector`.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that must have exactly these values.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": LABEL_VALUE},
            },
            "matchExpressions": {
                "description": "Requirements that must all hold.",
                "type": "array",
                "maxItems": 64,
                "items": {
                    "description": "One requirement on a label.",
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"description": "The label's key.", "type": "string", "minLength": 1, "maxLength": LABEL_KEY},
                        "operator": {
                            "description": "`In` and `NotIn` compare with `values`; `Exists` and `DoesNotExist` take none.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Values to compare with.",
                            "type": "array",
                            "maxItems": 256,
                            "items": {"type": "string", "maxLength": LABEL_VALUE},
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                        "message": "operator In and NotIn need values, Exists and DoesNotExist take none",
                    }],
                },
            },
        },
    })
}

/// Names and values that a search asks for.
pub(super) fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 512},
    })
}

/// The conditions of a status.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "description": "One aspect of the object's state.",
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"description": "Which aspect.", "type": "string", "minLength": 1, "maxLength": 316},
                "status": {"description": "Whether it holds.", "type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"description": "Why, in one word of a closed set.", "type": "string", "minLength": 1, "maxLength": 64},
                "message": {"description": "What happened and what to do; names, never values.", "type": "string", "maxLength": 1024},
                "lastTransitionTime": {"description": "When `status` changed last.", "type": "string", "format": "date-time"},
                "observedGeneration": {"description": "The generation that this speaks of.", "type": "integer", "format": "int64"},
            },
        },
    })
}

/// A Go duration, or whole seconds; at most 366 days.
pub(super) fn interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 64,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 0 && self <= 31622400 : self.matches('^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') && duration(self) >= duration('0s')",
            "message": "must be a Go duration such as 30s or 1h30m, or whole seconds, or 0 for once; it cannot be negative",
        }],
    })
}

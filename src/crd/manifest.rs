//! The CRDs as files: what `keyferry crds` prints and `crds/` holds.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use super::v1alpha1::{ClusterSecretStore, ExternalParameter, ExternalSecret, SecretStore};

/// An RFC 3339 time with all its digits.
const TIME_LENGTH: i64 = 64;

/// One CRD under the name of its file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Such as `externalsecrets.yaml`.
    pub file: String,
    pub crd: CustomResourceDefinition,
}

/// All kinds, in the order of their files.
#[must_use]
pub fn all() -> Vec<Manifest> {
    [ClusterSecretStore::crd(), ExternalParameter::crd(), ExternalSecret::crd(), SecretStore::crd()].map(finish).to_vec()
}

/// The YAML of a manifest: a document with the line that says where it came from, so that the files can simply be joined.
///
/// # Errors
/// When the schema cannot be written as YAML.
pub fn yaml(manifest: &Manifest) -> Result<String, serde_saphyr::SerializeError> {
    let document = serde_saphyr::to_string(&manifest.crd)?;
    Ok(format!("---\n# Printed by `keyferry crds`; a test compares.\n{document}"))
}

fn finish(mut crd: CustomResourceDefinition) -> Manifest {
    // An owned Secret goes with its object, and the objects with their CRD: removing a release must not remove the CRDs.
    let keep = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    crd.metadata.annotations.get_or_insert_default().extend([keep]);
    for schema in crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()) {
        tidy(schema);
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            // kstatus says InProgress for an object that nobody has looked at yet.
            status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
        }
    }
    Manifest { file: format!("{}.yaml", crd.spec.names.plural), crd }
}

/// Brings a generated schema into the form that suits an API server and Git: no nulls, no defaults of the code, descriptions on one line, every list with
/// its type, every time with its bound.
fn tidy(schema: &mut JSONSchemaProps) {
    // An explicit null is a mistake that names its field; in a nullable field it would count as set in the rules.
    schema.nullable = None;
    schema.default = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if schema.type_.as_deref() == Some("array") {
        schema.x_kubernetes_list_type.get_or_insert_with(|| "atomic".to_owned());
    }
    if schema.format.as_deref() == Some("date-time") {
        schema.max_length = Some(TIME_LENGTH);
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(tidy);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{all, yaml};

    #[test]
    fn the_folder_holds_what_the_program_prints_and_nothing_else() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crds");
        let mut expected: Vec<String> = all().iter().map(|manifest| manifest.file.clone()).collect();
        for manifest in all() {
            let committed = std::fs::read_to_string(folder.join(&manifest.file)).unwrap_or_default();
            assert!(committed == yaml(&manifest).unwrap(), "crds/{} differs from the program: run `make crds`", manifest.file);
        }
        let mut present: Vec<String> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        expected.push("kustomization.yaml".to_owned());
        expected.sort();
        present.sort();
        assert_eq!(present, expected);
    }

    #[test]
    fn every_file_is_small_enough_for_a_plain_apply() {
        for manifest in all() {
            let bytes = yaml(&manifest).unwrap().len();
            assert!(bytes <= 200 * 1024, "{} has {bytes} bytes", manifest.file);
        }
    }

    #[test]
    fn removing_a_release_keeps_the_kinds() {
        for manifest in all() {
            let annotations = manifest.crd.metadata.annotations.unwrap_or_default();
            assert_eq!(annotations.get("helm.sh/resource-policy").map(String::as_str), Some("keep"), "{}", manifest.file);
        }
    }
}

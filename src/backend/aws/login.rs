//! Who asks: the credentials that sign a call.

use aws_credential_types::Credentials as Keys;

use crate::{
    access::Role,
    backend::Credentials,
    crd::v1alpha1::{AwsAuth, AwsProvider},
    fault::{Class, Fault, Reason},
    secret::SecretValue,
};

/// The access key that stands in a store's Secrets.
///
/// # Errors
/// `InvalidSpec` without a way to log in, `StoreNotReady` without a usable access key.
pub(super) fn keys(spec: &AwsProvider, credentials: &Credentials) -> Result<Keys, Fault> {
    let Some(AwsAuth { secret_ref: Some(named) }) = &spec.auth else {
        return Err(Fault::invalid(Reason::InvalidSpec, "provider.aws.auth names no way to log in: set one of its members"));
    };
    let id = text(credentials, Role::AccessKeyId, "accessKeyIDSecretRef")?;
    let key = text(credentials, Role::SecretAccessKey, "secretAccessKeySecretRef")?;
    let token = named.session_token_secret_ref.as_ref().map(|_| text(credentials, Role::SessionToken, "sessionTokenSecretRef"));
    Ok(Keys::new(id, key, token.transpose()?, None, "Secret"))
}

/// Text as people put it into a Secret: often with a line break at its end.
fn text(credentials: &Credentials, role: Role, field: &str) -> Result<String, Fault> {
    let not_ready =
        |detail: &str| Fault::new(Class::Unavailable, Reason::StoreNotReady, format!("provider.aws.auth.secretRef.{field}: {detail}"));
    let found = credentials.secrets.get(&role).map(SecretValue::expose);
    let found = found.ok_or_else(|| not_ready("the Secret or its key is missing: put the credential there"))?;
    let text = str::from_utf8(found).map(str::trim).unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(not_ready("what stands there is empty or no key of AWS: put the credential there"));
    }
    Ok(text.to_owned())
}

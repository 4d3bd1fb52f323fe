//! The subjects of provider `aws`, Secrets Manager and Parameter Store: moto, behind a fault proxy that speaks for AWS where moto does not.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use keyferry::{
    access::Role,
    backend::{Backend, Credentials, Settings, open},
    crd::v1alpha1::{AwsProvider, Provider},
    fault,
    name::{ProviderKind, StoreName},
    secret::SecretValue,
};
use serde_json::json;

use super::{
    subject::{CANARY, Damage, Payload, Subject, Written},
    wire::{Voice, Wire},
};
use crate::{
    backends::{
        aws::admin::{REGION, Service},
        moto::Moto,
    },
    proxy::{Answer, Call, Fault, Matcher, Options},
};

/// A key of nobody; it may stand in no message.
const SECRET_KEY: &str = "canary/secret/access/key/of/the/contract";

pub struct Aws {
    service: Service,
    moto: Arc<Moto>,
    wire: Wire,
    has_credential: bool,
}

fn voice(service: Service) -> Voice {
    let (endless_list, list_verb): (fn(&Call) -> Answer, _) = match service {
        Service::Ssm => (more_parameters, "DescribeParameters"),
        _ => (more_secrets, "ListSecrets"),
    };
    let error = |code| {
        let kind = if code == 429 { "ThrottlingException" } else { "InternalServiceError" };
        json!({ "__type": kind, "message": CANARY })
    };
    Voice { error, endless_list: Some(endless_list), list_verb }
}

/// A page of names, and another one behind it.
fn more_secrets(call: &Call) -> Answer {
    let page: Vec<_> = (0..1000).map(|number| json!({ "Name": format!("{}-{number}", call.id), "ARN": "arn" })).collect();
    Answer::json(200, &json!({ "SecretList": page, "NextToken": "more" }))
}

fn more_parameters(call: &Call) -> Answer {
    let page: Vec<_> = (0..1000).map(|number| json!({ "Name": format!("/{}-{number}", call.id) })).collect();
    Answer::json(200, &json!({ "Parameters": page, "NextToken": "more" }))
}

impl Aws {
    /// What others left there is gone.
    pub async fn start(moto: Arc<Moto>, service: Service) -> Self {
        moto.reset().await;
        let wire = Wire::before(moto.url(), "", Options::aws(), voice(service));
        Self { service, moto, wire, has_credential: true }
    }

    async fn call(&self, operation: &str, input: serde_json::Value) {
        self.moto.admin().call(Service::SecretsManager, operation, &input).await.expect_success(operation);
    }

    fn is_of_parameters(&self) -> bool {
        matches!(self.service, Service::Ssm)
    }

    /// AWS's answer where moto would not give it.
    fn refuse(&mut self, kind: &str, message: &str) {
        let body = json!({ "__type": kind, "message": format!("{message} {CANARY}") });
        self.wire.on(Matcher::any(), Fault::answer(Answer::json(400, &body)));
    }
}

#[async_trait]
impl Subject for Aws {
    fn keys(&self) -> ProviderKind {
        if self.is_of_parameters() { ProviderKind::AwsParameterStore } else { ProviderKind::AwsSecretsManager }
    }

    /// A name with folders begins with a slash in Parameter Store.
    fn spell(&self, key: &str) -> String {
        if self.is_of_parameters() { format!("/{key}") } else { key.to_owned() }
    }

    fn open(&self) -> Result<Arc<dyn Backend>, fault::Fault> {
        let key = |key: &str| json!({ "name": "aws", "key": key });
        let spec = json!({
            "service": if self.is_of_parameters() { "ParameterStore" } else { "SecretsManager" },
            "region": REGION,
            "endpoint": self.wire.url(),
            "caBundle": BASE64_STANDARD.encode(&self.wire.ca_pem),
            "auth": { "secretRef": { "accessKeyIDSecretRef": key("id"), "secretAccessKeySecretRef": key("key") } },
        });
        let spec: AwsProvider = serde_json::from_value(spec).expect("a provider block");
        let secrets = [(Role::AccessKeyId, "AKIDCONTRACT"), (Role::SecretAccessKey, SECRET_KEY)];
        let secrets = secrets.into_iter().filter(|_| self.has_credential);
        let secrets = secrets.map(|(role, text)| (role, SecretValue::from(text.to_owned()))).collect();
        let settings = Settings { call_timeout: self.wire.deadline, ..Settings::default() };
        let name = StoreName::Cluster { name: "contract".into() };
        open(&name, Provider::Aws(&spec), &Credentials { secrets, tokens: None }, &settings)
    }

    async fn write(&mut self, key: &str, payload: &Payload) -> Written {
        if self.is_of_parameters() {
            let text = String::from_utf8(payload.bytes()).expect("text");
            let version = self.moto.admin().put_parameter(&self.spell(key), "SecureString", &text).await.to_string();
            return Written { bytes: payload.bytes(), version: Some(version.clone()), told: Some(version) };
        }
        let version = match String::from_utf8(payload.bytes()) {
            Ok(text) => self.moto.admin().put_secret(key, &text).await,
            Err(bytes) => self.moto.admin().put_binary(key, bytes.as_bytes()).await,
        };
        Written { bytes: payload.bytes(), version: Some(format!("uuid/{version}")), told: Some(format!("uuid/{version}")) }
    }

    async fn remove(&mut self, key: &str) {
        if self.is_of_parameters() {
            return self.moto.admin().remove_parameter(&self.spell(key)).await;
        }
        self.call("DeleteSecret", json!({ "SecretId": key, "ForceDeleteWithoutRecovery": true })).await;
    }

    async fn damage(&mut self, damage: Damage) {
        if self.wire.damage(damage) {
            return;
        }
        match damage {
            Damage::Denied => self.refuse("AccessDeniedException", "User: nobody is not authorized to perform it"),
            Damage::Expired => self.refuse("ExpiredTokenException", "The security token included in the request is expired"),
            Damage::NoCredential => self.has_credential = false,
            other => unreachable!("{other:?}"),
        }
    }

    async fn mend(&mut self) -> bool {
        self.wire.mend();
        true
    }

    fn traffic(&self) -> (u64, usize) {
        self.wire.traffic()
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET_KEY.to_owned()]
    }
}

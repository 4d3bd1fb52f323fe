//! Who may do what: everybody everything in the own account, but for what a test denies or disables. Other accounts only what they are given.

use super::failure::{Failure, Result};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub account: String,
    /// `arn:aws:iam::123456789012:user/reader` or that of a session of a role.
    pub arn: String,
    pub is_admin: bool,
}

/// Something that is refused. `*` at the end of a pattern stands for any rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The caller's ARN.
    pub who: String,
    /// `secretsmanager:GetSecretValue`, `ssm:*`
    pub action: String,
    /// Name of a secret or parameter; `*` for actions that are about none.
    pub name: String,
    /// A batch with such a name in it is refused whole, where AWS would otherwise name it beside the others.
    pub whole_batch: bool,
}

impl Denial {
    pub fn new(who: &str, action: &str, name: &str) -> Self {
        Self { who: who.to_owned(), action: action.to_owned(), name: name.to_owned(), whole_batch: false }
    }

    /// See `whole_batch`.
    pub fn of_whole_batches(self) -> Self {
        Self { whole_batch: true, ..self }
    }

    fn covers(&self, caller: &Caller, action: &str, name: &str) -> bool {
        matches(&self.who, &caller.arn) && matches(&self.action, action) && matches(&self.name, name)
    }
}

/// What is wrong with a KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// By its administrator, for everybody.
    Disabled,
    /// The caller may use the secret, but not the key.
    Denied,
}

/// What a test set.
#[derive(Default)]
pub struct Gate {
    pub denials: Vec<Denial>,
    pub keys: Vec<(String, KeyState)>,
    /// (account, name pattern, other account)
    pub shares: Vec<(String, String, String)>,
}

impl Gate {
    /// One action on one thing; `name` is `*` where the action is about none, `resource` is how the refusal names it.
    pub fn check(&self, caller: &Caller, owner: &str, action: &str, name: &str, resource: &str) -> Result<()> {
        if caller.is_admin {
            return Ok(());
        }
        let is_foreign = owner != caller.account;
        let is_shared = || self.shares.iter().any(|(of, what, with)| of == owner && matches(what, name) && *with == caller.account);
        if (is_foreign && !is_shared()) || self.denial(caller, action, name).is_some() {
            return Err(refusal(caller, action, resource));
        }
        Ok(())
    }

    /// Whether a batch with that name in it is refused as a whole.
    pub fn refuses_batch(&self, caller: &Caller, action: &str, name: &str) -> bool {
        self.denials.iter().any(|denial| denial.whole_batch && !caller.is_admin && denial.covers(caller, action, name))
    }

    pub fn denial(&self, caller: &Caller, action: &str, name: &str) -> Option<&Denial> {
        self.denials.iter().find(|denial| !caller.is_admin && denial.covers(caller, action, name))
    }

    pub fn key(&self, caller: &Caller, key: &str) -> Option<KeyState> {
        let (_, state) = self.keys.iter().find(|(wrong, _)| wrong == key)?;
        (!caller.is_admin).then_some(*state)
    }
}

pub fn refusal(caller: &Caller, action: &str, resource: &str) -> Failure {
    let why = format!("because no identity-based policy allows the {action} action");
    Failure::new(
        "AccessDeniedException",
        format!("User: {} is not authorized to perform: {action} on resource: {resource} {why}", caller.arn),
    )
}

fn matches(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == text, |start| text.starts_with(start))
}

//! How the calls to a store go, told when that changes: the store's own status follows.

use std::sync::{Mutex, PoisonError};

use crate::fault::{Class, Fault};

/// What a call says about the store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// It answers. Whether the key is there, or holds anything of use, is not its matter.
    Well,
    /// It refuses: this key, or everything.
    Refused,
    /// It gives no answer, or none that can be trusted.
    Unavailable,
}

/// The last sign of one session.
pub struct Pulse {
    last: Mutex<Option<Sign>>,
    tell: Box<dyn Fn(Sign) + Send + Sync>,
}

impl Pulse {
    /// `tell` is called for the first sign and for each that differs from the one before.
    pub fn new(tell: impl Fn(Sign) + Send + Sync + 'static) -> Self {
        Self { last: Mutex::default(), tell: Box::new(tell) }
    }

    /// A look ended so.
    pub(super) fn note(&self, fault: Option<&Fault>) {
        if let Some(sign) = sign(fault)
            && self.replace(sign) != Some(sign)
        {
            (self.tell)(sign);
        }
    }

    /// A check ended so; whoever made it knows.
    pub(super) fn settle(&self, fault: Option<&Fault>) {
        if let Some(sign) = sign(fault) {
            self.replace(sign);
        }
    }

    fn replace(&self, sign: Sign) -> Option<Sign> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(sign)
    }
}

/// A store that asks for patience is neither well nor gone, and a bug of ours says nothing about it.
fn sign(fault: Option<&Fault>) -> Option<Sign> {
    match fault.map(|fault| fault.class) {
        None | Some(Class::Absent | Class::Invalid) => Some(Sign::Well),
        Some(Class::Denied) => Some(Sign::Refused),
        Some(Class::Unavailable) => Some(Sign::Unavailable),
        Some(Class::Throttled { .. } | Class::Conflict | Class::Cluster | Class::Bug) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{Pulse, Sign};
    use crate::fault::{Fault, Reason};

    #[test]
    fn only_what_differs_from_the_sign_before_is_told() {
        let told: Arc<Mutex<Vec<Sign>>> = Arc::default();
        let ear = Arc::clone(&told);
        let pulse = Pulse::new(move |sign| ear.lock().unwrap().push(sign));
        let (down, refused, slow) = (Fault::unavailable("x"), Fault::access_denied("x"), Fault::throttled(None, "x"));
        pulse.note(None);
        pulse.note(Some(&Fault::absent(Reason::NotFound, "x")));
        pulse.note(Some(&slow));
        pulse.note(Some(&down));
        pulse.note(Some(&down));
        pulse.settle(None);
        pulse.note(None);
        pulse.note(Some(&refused));
        pulse.note(None);
        assert_eq!(*told.lock().unwrap(), [Sign::Well, Sign::Unavailable, Sign::Refused, Sign::Well]);
    }
}

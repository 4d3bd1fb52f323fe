//! Whether a reconcile has anything to do: everything that matters agrees, or it does not. Pure.

use crate::crd::v1alpha1::RefreshPolicy;

/// How the target stands against what was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// `creationPolicy: None`, or nothing was ever written for this object.
    Unwritten,
    /// It is there and holds what was applied.
    InOrder,
    /// It was written, and is gone.
    Missing,
    /// Keys, label, annotation or owner that were applied are no longer ours.
    Drifted,
}

/// The facts that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub is_suspended: bool,
    pub policy: RefreshPolicy,
    /// This generation, these inputs and this refresh token were handled, and what came of it still stands.
    pub is_settled: bool,
    /// A look is wanted: the poller saw a change or a failure or confirmed an absence, or looks have failed for longer than the
    /// staleness limit while the status still says Ready.
    pub is_asked: bool,
    pub target: TargetState,
}

/// What a reconcile does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Due {
    /// Registered, done.
    Nothing,
    /// Say that it rests; read and write nothing else.
    Suspended,
    /// `CreatedOnce` and created: say so for this generation; read and write nothing else.
    Kept,
    /// Fetch, plan, apply, report.
    Fetch,
}

/// The decision.
#[must_use]
pub fn due(standing: Standing) -> Due {
    if standing.is_suspended {
        return Due::Suspended;
    }
    if standing.policy == RefreshPolicy::CreatedOnce && matches!(standing.target, TargetState::InOrder | TargetState::Drifted) {
        return if standing.is_settled { Due::Nothing } else { Due::Kept };
    }
    let is_disturbed = matches!(standing.target, TargetState::Missing | TargetState::Drifted);
    if !standing.is_settled || standing.is_asked || is_disturbed { Due::Fetch } else { Due::Nothing }
}

#[cfg(test)]
mod tests {
    use super::{Due, Standing, TargetState, due};
    use crate::crd::v1alpha1::RefreshPolicy;

    const AT_REST: Standing =
        Standing { is_suspended: false, policy: RefreshPolicy::Periodic, is_settled: true, is_asked: false, target: TargetState::InOrder };

    #[test]
    fn each_fact_alone_changes_the_decision() {
        let once = Standing { policy: RefreshPolicy::CreatedOnce, ..AT_REST };
        let cases = [
            ("at rest", AT_REST, Due::Nothing),
            ("never written, and settled so", Standing { target: TargetState::Unwritten, ..AT_REST }, Due::Nothing),
            ("new generation", Standing { is_settled: false, ..AT_REST }, Due::Fetch),
            ("woken, or stale", Standing { is_asked: true, ..AT_REST }, Due::Fetch),
            ("target gone", Standing { target: TargetState::Missing, ..AT_REST }, Due::Fetch),
            ("target edited", Standing { target: TargetState::Drifted, ..AT_REST }, Due::Fetch),
            ("suspended", Standing { is_suspended: true, is_asked: true, is_settled: false, ..AT_REST }, Due::Suspended),
            ("created once", once, Due::Nothing),
            ("created once, woken", Standing { is_asked: true, ..once }, Due::Nothing),
            ("created once, edited object", Standing { is_settled: false, ..once }, Due::Kept),
            ("created once, edited target", Standing { target: TargetState::Drifted, ..once }, Due::Nothing),
            ("created once, target gone", Standing { target: TargetState::Missing, ..once }, Due::Fetch),
            ("not yet created once", Standing { is_settled: false, target: TargetState::Unwritten, ..once }, Due::Fetch),
            ("on change", Standing { policy: RefreshPolicy::OnChange, is_settled: false, ..AT_REST }, Due::Fetch),
        ];
        for (name, standing, expected) in cases {
            assert_eq!(due(standing), expected, "{name}");
        }
    }
}

//! Stage 5. WRITE: executes the steps in order; no choice is left to make.

use crate::{
    cluster::{
        Cluster, ClusterError,
        target::{TargetFacts, TargetIndex, TargetName},
    },
    engine::plan::{DeleteCause, Plan, Step, Write, WriteKind},
};

/// What was done, up to the first step that failed.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// The target as the last write left it.
    pub target: Option<TargetFacts>,
    pub wrote: Option<WriteKind>,
    pub restored: Vec<String>,
    pub deleted: Option<DeleteCause>,
    pub failure: Option<ClusterError>,
}

/// Executes a plan's steps; the index learns what was written before the watch tells.
pub async fn apply(plan: &Plan, cluster: &Cluster, targets: &TargetIndex) -> Done {
    let mut done = Done::default();
    for step in &plan.steps {
        let result = match step {
            Step::Write(write) => apply_write(write, cluster, targets, &mut done).await,
            Step::Delete { target, facts, cause } => delete(target, facts, *cause, cluster, targets, &mut done).await,
        };
        if let Err(failure) = result {
            done.failure = Some(failure);
            return done;
        }
    }
    done
}

async fn apply_write(write: &Write, cluster: &Cluster, targets: &TargetIndex, done: &mut Done) -> Result<(), ClusterError> {
    let facts = match cluster.apply_target(&write.body, &write.guard, &write.manager, false).await {
        // The plan said which fields may be taken; anything else in the conflict stays its holder's.
        Err(ClusterError::Held { fields, .. }) if fields.iter().all(|field| write.may_force.contains(field)) => {
            cluster.apply_target(&write.body, &write.guard, &write.manager, true).await?
        }
        other => other?,
    };
    targets.put(write.body.target.clone(), facts.clone(), true);
    done.target = Some(facts);
    done.wrote = Some(write.kind);
    done.restored.clone_from(&write.restored);
    Ok(())
}

async fn delete(
    target: &TargetName,
    facts: &TargetFacts,
    cause: DeleteCause,
    cluster: &Cluster,
    targets: &TargetIndex,
    done: &mut Done,
) -> Result<(), ClusterError> {
    match cluster.delete_target(target, facts).await {
        Ok(()) | Err(ClusterError::NotFound) => {
            targets.remove(target);
            done.deleted = Some(cause);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

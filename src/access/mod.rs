//! (being written)

/// Proof that access was judged: only `access` can make one, and `fetch` takes nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Granted<T>(T);

impl<T> Granted<T> {
    /// What was granted.
    pub fn get(&self) -> &T {
        &self.0
    }
}

//! Counts what a backend was called for, what came of it, and how long it took, and tells when its calls begin to go otherwise.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::Pulse;
use crate::{
    backend::{Backend, List, Probe, Traits, Write},
    fault::Fault,
    item::{Fetched, Hint, Reading},
    metrics::{Metrics, Operation, StoreSeries},
    name::{ProviderKind, RemoteKey, RemoteRef},
};

/// A backend whose calls and readings are counted.
pub struct Counted {
    backend: Arc<dyn Backend>,
    provider: ProviderKind,
    metrics: Metrics,
    series: StoreSeries,
    pulse: Pulse,
}

impl Counted {
    /// `name` is that of a ClusterSecretStore.
    pub fn new(backend: Arc<dyn Backend>, provider: ProviderKind, name: Option<&str>, metrics: Metrics, pulse: Pulse) -> Self {
        let series = metrics.store(name);
        Self { backend, provider, metrics, series, pulse }
    }

    fn begin(&self, operation: Operation) -> Call<'_> {
        Call { counted: self, operation, began: Instant::now(), fault: Some(Fault::unavailable("ended before it was answered")) }
    }
}

/// A call under way. One that is given up before it was answered counts as unavailable.
struct Call<'a> {
    counted: &'a Counted,
    operation: Operation,
    began: Instant,
    fault: Option<Fault>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Counted { provider, series, pulse, .. } = self.counted;
        series.called(*provider, self.operation, self.fault.as_ref(), self.began.elapsed());
        match self.operation {
            Operation::Check => pulse.settle(self.fault.as_ref()),
            Operation::Read | Operation::List => pulse.note(self.fault.as_ref()),
        }
    }
}

#[async_trait]
impl Backend for Counted {
    fn batch_size(&self) -> usize {
        self.backend.batch_size()
    }

    fn shares(&self, wanted: &RemoteRef) -> Option<String> {
        self.backend.shares(wanted)
    }

    async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
        let mut call = self.begin(Operation::Read);
        let readings = self.backend.fetch(refs).await;
        // What is proven absent was answered.
        call.fault = readings.iter().find_map(unanswered).cloned();
        for reading in &readings {
            self.metrics.looked(fault_of(reading));
        }
        readings
    }

    async fn check(&self) -> Result<Traits, Fault> {
        let mut call = self.begin(Operation::Check);
        let checked = self.backend.check().await;
        call.fault = checked.as_ref().err().cloned();
        checked
    }

    fn lister(&self) -> Option<&dyn List> {
        self.backend.lister().map(|_| self as &dyn List)
    }

    /// Not counted: it reads no value, and what it costs is the backend's own matter.
    fn prober(&self) -> Option<&dyn Probe> {
        self.backend.prober()
    }

    fn writer(&self) -> Option<&dyn Write> {
        self.backend.writer()
    }

    fn is_unattended(&self, wanted: &RemoteRef) -> bool {
        self.backend.is_unattended(wanted)
    }

    async fn release(&self, wanted: &RemoteRef) {
        self.backend.release(wanted).await;
    }

    fn changes(&self) -> Option<BoxStream<'static, Hint>> {
        self.backend.changes()
    }
}

#[async_trait]
impl List for Counted {
    async fn list(&self, path: Option<&str>) -> Result<Vec<RemoteKey>, Fault> {
        self.list_tagged(path, &BTreeMap::new()).await
    }

    async fn list_tagged(&self, path: Option<&str>, tags: &BTreeMap<String, String>) -> Result<Vec<RemoteKey>, Fault> {
        let lister = self.backend.lister().ok_or_else(|| Fault::unavailable("the store cannot list names"))?;
        let mut call = self.begin(Operation::List);
        let names = lister.list_tagged(path, tags).await;
        call.fault = names.as_ref().err().cloned();
        self.metrics.looked(names.as_ref().err());
        names
    }

    fn gives_values(&self, path: Option<&str>) -> bool {
        self.backend.lister().is_some_and(|lister| lister.gives_values(path))
    }

    async fn list_values(&self, path: Option<&str>) -> Result<Option<BTreeMap<RemoteKey, Fetched>>, Fault> {
        let Some(lister) = self.backend.lister() else { return Ok(None) };
        let mut call = self.begin(Operation::List);
        let values = lister.list_values(path).await;
        call.fault = values.as_ref().err().cloned();
        self.metrics.looked(values.as_ref().err());
        values.iter().flatten().flatten().for_each(|_| self.metrics.looked(None));
        values
    }
}

fn unanswered(reading: &Reading) -> Option<&Fault> {
    match reading {
        Reading::Unknown(fault) => Some(fault),
        Reading::Found(_) | Reading::Absent(_) => None,
    }
}

fn fault_of(reading: &Reading) -> Option<&Fault> {
    match reading {
        Reading::Absent(fault) | Reading::Unknown(fault) => Some(fault),
        Reading::Found(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Backend, Counted, Fault, Metrics, ProviderKind, Pulse, Reading, RemoteKey, RemoteRef};
    use async_trait::async_trait;
    use std::{future::pending, sync::Arc};

    struct Fixed(Option<Fault>);

    #[async_trait]
    impl Backend for Fixed {
        fn batch_size(&self) -> usize {
            7
        }

        async fn fetch(&self, refs: &[RemoteRef]) -> Vec<Reading> {
            match &self.0 {
                Some(fault) => vec![Reading::Unknown(fault.clone()); refs.len()],
                None => pending().await,
            }
        }
    }

    fn two() -> Vec<RemoteRef> {
        ["a", "b"]
            .map(|key| RemoteRef { key: RemoteKey::parse(ProviderKind::Fake, key).unwrap(), version: None, is_metadata: false })
            .to_vec()
    }

    #[tokio::test]
    async fn a_call_counts_once_and_each_reading_counts_as_a_look() {
        let metrics = Metrics::new();
        let backend = Arc::new(Fixed(Some(Fault::access_denied("x"))));
        let counted = Counted::new(backend, ProviderKind::Fake, Some("store"), metrics.clone(), Pulse::new(drop));
        assert_eq!((counted.fetch(&two()).await.len(), counted.batch_size()), (2, 7));
        let page = metrics.render();
        for line in [
            "keyferry_backend_calls_total{provider=\"fake\",store=\"store\",operation=\"read\",outcome=\"AccessDenied\"} 1",
            "keyferry_looks_total{reason=\"AccessDenied\"} 2",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        assert!(counted.lister().is_none());
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_counts_as_unavailable() {
        let metrics = Metrics::new();
        let counted = Counted::new(Arc::new(Fixed(None)), ProviderKind::Fake, Some("store"), metrics.clone(), Pulse::new(drop));
        let refs = two();
        let mut call = Box::pin(counted.fetch(&refs));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        assert!(metrics.render().contains("outcome=\"ProviderUnavailable\"} 1"), "{}", metrics.render());
    }
}

//! Looks that read nothing: whether what was read before is still current, by its version alone.

use crate::{
    access::Search,
    backend::Probe,
    item::{Item, Versions, Wanted},
};

/// True only where the system proves it.
pub async fn is_unchanged(prober: &dyn Probe, item: &Item, known: &Versions) -> bool {
    match (&item.wanted, known) {
        (Wanted::Value(wanted), Versions::Value(known)) => prober.version(wanted).await.as_ref() == Some(known),
        (Wanted::Find(find), Versions::Found(known)) => {
            let (Ok(search), Some(current)) = (Search::new(find), prober.versions(&find.listing).await) else { return false };
            current.iter().filter(|(name, _)| search.takes(name)).eq(known)
        }
        (Wanted::Value(_), Versions::Found(_)) | (Wanted::Find(_), Versions::Value(_)) => false,
    }
}

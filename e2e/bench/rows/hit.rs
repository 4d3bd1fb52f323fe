//! What a look costs that shares what is held.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use keyferry::cache::{Kept, Table as Cache};

use crate::bench::table::Table;

const KEYS: usize = 10_000;
const HITS: usize = 1_000_000;

pub fn measure(table: &mut Table) {
    let (mut cache, at) = (Cache::<String, Vec<u8>>::default(), tokio::time::Instant::now());
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key-{number}")).collect();
    let held: Vec<_> = keys.iter().map(|_| Arc::new(Kept { answer: vec![b'x'; 64], at, counted: None })).collect();
    for (key, kept) in keys.iter().zip(&held) {
        cache.put(key.clone(), kept);
    }
    let began = Instant::now();
    for key in keys.iter().cycle().take(HITS) {
        assert!(black_box(cache.get(key, at)).is_some());
    }
    let micros = began.elapsed().as_secs_f64() * 1e6 / HITS as f64;
    table.enter("cache hit through the library", "< 50 µs", format!("{micros:.3} µs"), micros < 50.0);
}

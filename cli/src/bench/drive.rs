//! A closed loop: each client keeps a fixed number of requests outstanding.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Barrier;

/// What one measurement saw.
pub(super) struct Measured {
    /// Operations done within the time.
    pub(super) operations: u64,
    /// Operations that failed.
    pub(super) errors: u64,
    /// The first error, in words.
    pub(super) first_error: Option<String>,
    /// From the first operation's start to the last one's end.
    pub(super) elapsed: Duration,
    /// Latency of the operations, in microseconds.
    pub(super) latency: Histogram<u64>,
}

/// A histogram of microseconds up to a minute, to three digits.
pub(super) fn new_histogram() -> Histogram<u64> {
    // The bounds are constants that the library accepts.
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|error| panic!("{error}"))
}

/// Records a latency; beyond a minute it counts as a minute.
pub(super) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(
        u64::try_from(latency.as_micros())
            .unwrap_or(u64::MAX)
            .max(1),
    );
}

/// Runs `pipeline` loops of `operation` for each of `clients`, all begun together, for so long.
pub(super) async fn closed_loop<C, F, E>(
    clients: Vec<C>,
    pipeline: usize,
    for_how_long: Duration,
    operation: impl Fn(C, u64) -> F + Clone + Send + Sync + 'static,
) -> Measured
where
    C: Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(clients.len() * pipeline + 1));
    let mut loops = Vec::new();
    for client in clients {
        for lane in 0..pipeline as u64 {
            let (client, barrier, operation) = (client.clone(), barrier.clone(), operation.clone());
            loops.push(tokio::spawn(async move {
                barrier.wait().await;
                one_loop(client, lane, for_how_long, operation).await
            }));
        }
    }
    barrier.wait().await;
    let began = Instant::now();
    let mut whole = Measured {
        operations: 0,
        errors: 0,
        first_error: None,
        elapsed: Duration::ZERO,
        latency: new_histogram(),
    };
    for task in loops {
        let Ok(part) = task.await else { continue };
        whole.operations += part.operations;
        whole.errors += part.errors;
        whole.first_error = whole.first_error.or(part.first_error);
        // Both have the same bounds.
        let _ = whole.latency.add(&part.latency);
    }
    whole.elapsed = began.elapsed();
    whole
}

async fn one_loop<C, F, E>(
    client: C,
    lane: u64,
    for_how_long: Duration,
    operation: impl Fn(C, u64) -> F,
) -> Measured
where
    C: Clone,
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut latency = new_histogram();
    let (mut operations, mut errors, mut first_error) = (0, 0, None);
    let began = Instant::now();
    while began.elapsed() < for_how_long {
        let at = Instant::now();
        match operation(client.clone(), lane).await {
            Ok(()) => {
                operations += 1;
                record(&mut latency, at.elapsed());
            }
            Err(error) => {
                errors += 1;
                first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
    Measured {
        operations,
        errors,
        first_error,
        elapsed: began.elapsed(),
        latency,
    }
}

//! The signals that end the process: the first asks it to finish what it does, the second ends it at once.

use std::{io, process};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGTERM or SIGINT cancels. A second signal exits at once, so that nobody has to wait for a stop that hangs.
///
/// # Errors
/// When the process may not handle signals.
pub fn stop_token() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let name = first(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping: work in progress is finished, a second signal ends it at once");
        stop.cancel();
        let name = first(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "ended by a second signal");
        end_at_once();
    });
    Ok(token)
}

#[expect(clippy::disallowed_methods, reason = "who asks twice does not want the graceful stop")]
fn end_at_once() -> ! {
    process::exit(130)
}

async fn first(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

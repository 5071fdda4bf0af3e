//! `--http`: health and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics;
use crate::state::State;

/// Serves until `stop` turns true.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(|Extract(state): Extract<Arc<State>>| async move { metrics::render(&state) }))
        .with_state(state);
    serve_router(listener, router, stop).await
}

/// Serves these routes until `stop` turns true.
pub(crate) async fn serve_router(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let stopped = async move {
        // A dropped sender means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

async fn health(Extract(state): Extract<Arc<State>>) -> (StatusCode, String) {
    let behind = state.cluster().behind().cloned();
    let ok = |text: String| (StatusCode::OK, text);
    match (state.failure().borrow().as_ref(), behind) {
        (Some(failure), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")),
        (None, _) if !state.may_answer() => {
            let text = format!("the leader's lease has run out, epoch={}\n", state.epoch);
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        // Reads are served.
        (None, Some(behind)) => ok(format!("read-only epoch={}: {behind}\n", state.epoch)),
        (None, None) => ok(format!("ok epoch={}\n", state.epoch)),
    }
}

//! The admin HTTP of a node: liveness, readiness, metrics, status. It shares nothing with the data
//! path but what it reads, so that scraping never hurts a call.
//!
//! * `GET /livez`: 200 while the process runs.
//! * `GET /readyz`: 200 when the node can serve, with what it refuses all the same; else 503 with the reason.
//! * `GET /metrics`: OpenMetrics with exemplars to who asks for it, else Prometheus's classic text.
//! * `GET /status`: what the node knows of itself, as JSON.
//! * `GET /settings`: the settings that it runs with, as JSON; a secret is a hash.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::metrics::exposition::Form;

pub mod probe;

/// What the admin HTTP asks of the node behind it.
pub trait Subject: Send + Sync + 'static {
    /// `Ok` when the node can serve, else why not.
    fn ready(&self) -> BoxFuture<'static, Result<(), String>>;
    /// What it refuses although it can serve the rest.
    fn refuses(&self) -> Option<String>;
    /// All metrics as OpenMetrics text.
    fn metrics(&self) -> BoxFuture<'static, String>;
    /// What the node knows of itself.
    fn status(&self) -> BoxFuture<'static, serde_json::Value>;
    /// The settings that it runs with, without a secret.
    fn settings(&self) -> serde_json::Value;
}

/// Serves the admin HTTP on a bound listener until the task is aborted.
#[must_use]
pub fn serve(listener: TcpListener, subject: Arc<dyn Subject>) -> JoinHandle<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/settings", get(settings))
        .with_state(subject);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "admin HTTP stopped");
        }
    })
}

/// Binds the admin address.
///
/// # Errors
/// Says which address could not be had.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| anyhow::anyhow!("admin HTTP cannot listen on {address}: {e}"))
}

async fn readyz(State(subject): State<Arc<dyn Subject>>) -> impl IntoResponse {
    match subject.ready().await {
        Ok(()) => match subject.refuses() {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(what) => (StatusCode::OK, format!("ready; {what}\n")),
        },
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(subject): State<Arc<dyn Subject>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let form = Form::asked(&accept.collect::<Vec<_>>().join(","));
    let kind = [(header::CONTENT_TYPE, form.media_type()), (header::VARY, "Accept")];
    (kind, form.of(subject.metrics().await))
}

async fn settings(State(subject): State<Arc<dyn Subject>>) -> impl IntoResponse {
    axum::Json(subject.settings())
}

async fn status(State(subject): State<Arc<dyn Subject>>) -> impl IntoResponse {
    axum::Json(subject.status().await)
}

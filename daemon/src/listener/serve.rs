//! Serves HTTP/1.1 on connections, each in a task of its own.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::trace;

use super::accept::{Accepted, ClientAddress, Listener};

/// Serves `router` until `stop`, then finishes the answers in progress. If no complete request head
/// arrives within `head_timeout`, the connection is closed.
pub(crate) async fn serve(
    mut listener: Listener,
    router: Router,
    stop: CancellationToken,
    head_timeout: impl Fn() -> Duration,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let served = serve_one(accepted, router.clone(), stop.clone(), head_timeout());
        connections.spawn(served);
    }
    // Closes the socket at once: new clients are refused, and can go to another replica, instead of
    // waiting in the backlog.
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn serve_one(
    accepted: Accepted,
    router: Router,
    stop: CancellationToken,
    head_timeout: Duration,
) {
    let Accepted {
        connection,
        address,
        permit,
    } = accepted;
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let from = ConnectInfo(ClientAddress(address));
        request.extensions_mut().insert(from);
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(connection), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stop.cancelled() => {
            // An idle connection is closed; an answer in progress is finished first.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        trace!(%error, "A connection failed");
    }
    drop(permit);
}

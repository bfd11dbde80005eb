//! What a server serves beside its own services: health, reflection, and a refusal of everything else.

use super::{
    Limits,
    call_limits::{CallLimiter, limit_calls},
    request_body::{RequestBodies, limit_request_bodies},
};
use crate::{
    metrics::{Metrics, RpcLayer},
    v1::FILE_DESCRIPTOR_SET,
};
use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, Version, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use std::sync::Arc;
use tonic::service::Routes;

/// Services that every server has.
const ALWAYS_SERVED: [&str; 3] = [
    tonic_health::pb::health_server::SERVICE_NAME,
    tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME,
    tonic_reflection::pb::v1alpha::server_reflection_server::SERVICE_NAME,
];

/// The contract's descriptors cannot be served by reflection: a fault of this build.
#[derive(Debug, thiserror::Error)]
#[error("the contract's descriptors cannot be served: {0}")]
pub struct RouterError(#[from] tonic_reflection::server::Error);

/// Adds health, reflection, the pages of `http` and an answer for unknown paths to a server's own `services`, whose full names are
/// `served`. Requests of one message are limited in time and memory, calls in number and rate; `metrics` counts calls of the services.
///
/// # Errors
/// When the contract's descriptors cannot be read, which is a fault of this build.
pub fn router(
    services: Routes,
    served: &[&str],
    health: tonic_health::server::HealthReporter,
    http: axum::Router,
    limits: &Limits,
    metrics: &Metrics,
) -> Result<axum::Router, RouterError> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl can decode the details of an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
        // The descriptors have the services of other servers, too; only those that are here are listed.
        served.iter().chain(&ALWAYS_SERVED).fold(builder, |builder, name| builder.with_service_name(*name))
    };
    let grpc = services
        .add_service(tonic_health::pb::health_server::HealthServer::new(
            tonic_health::server::HealthService::from_health_reporter(health),
        ))
        .add_service(reflection().build_v1()?)
        // Older tools, grpcurl 1.8 among them, ask for this one.
        .add_service(reflection().build_v1alpha()?);
    let bodies = middleware::from_fn_with_state(Arc::new(RequestBodies::new(limits)), limit_request_bodies);
    // Within what counts calls by method and reason, so that those that are refused count, too.
    let limit = middleware::from_fn_with_state(Arc::new(CallLimiter::new(&limits.calls, metrics)), limit_calls);
    let grpc = grpc.into_axum_router().route_layer(limit.clone());
    let grpc = grpc.route_layer(RpcLayer::new(metrics, served)).route_layer(middleware::from_fn(only_grpc));
    Ok(grpc.merge(http.layer(limit)).fallback(unknown_path).layer(bodies))
}

/// Refuses calls that are not HTTP/2 with gRPC's content type. A browser cannot send such a request to another site without a CORS
/// preflight (Fetch standard, "CORS-safelisted request-header"), which nothing here answers, so no web page can make a call.
async fn only_grpc(request: Request, next: Next) -> Response {
    if request.version() == Version::HTTP_2 && is_grpc(request.headers()) {
        return next.run(request).await;
    }
    let text = "this is a gRPC method: call it over HTTP/2 with content-type application/grpc, as `grpcurl -plaintext` does\n";
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn unknown_path(uri: Uri, headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        tonic::Status::unimplemented("no such method here; list the services with `grpcurl -plaintext HOST:PORT list`")
            .into_http()
    } else {
        let text = format!("nothing at {}; see / for what is here\n", uri.path());
        (StatusCode::NOT_FOUND, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
    }
}

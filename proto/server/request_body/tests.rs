use super::*;
use axum::{Router, body::to_bytes, http::StatusCode, middleware, response::IntoResponse as _, routing::post};
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::ServiceExt as _;

/// Answers with the reason why the body could not be read, or `ok`.
async fn read(body: Body) -> Response {
    match to_bytes(body, usize::MAX).await {
        Ok(_) => "ok".into_response(),
        Err(error) => {
            let reason = Reason::of(&Status::from_error(Box::new(error))).map_or("none", Reason::as_str);
            (StatusCode::BAD_REQUEST, reason).into_response()
        }
    }
}

fn server(timeout: Duration, memory: usize) -> (Router, Arc<RequestBodies>) {
    let limits = Limits { request_body: timeout, request_memory: memory, ..Limits::default() };
    let bodies = Arc::new(RequestBodies::new(&limits));
    let limit = middleware::from_fn_with_state(Arc::clone(&bodies), limit_request_bodies);
    (Router::new().route("/", post(read)).route("/p2pdi.v1.Peer/Link", post(read)).layer(limit), bodies)
}

type Answer = tokio::task::JoinHandle<String>;

/// Begins a request; what is sent over the channel is its body.
fn begin(server: &Router, path: &str) -> (mpsc::UnboundedSender<Result<Bytes, Infallible>>, Answer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let body = Body::from_stream(UnboundedReceiverStream::new(receiver));
    let answered = server.clone().oneshot(Request::post(path).body(body).unwrap());
    let answer = tokio::spawn(async move {
        let body = to_bytes(answered.await.unwrap().into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    });
    (sender, answer)
}

fn bytes(length: usize) -> Result<Bytes, Infallible> {
    Ok(vec![b'x'; length].into())
}

#[tokio::test]
async fn a_body_that_drips_is_ended_at_the_time_limit_and_a_stream_is_not() {
    let (server, _) = server(Duration::from_millis(500), 1 << 20);
    let (dripping, ended) = begin(&server, "/");
    let (streaming, open) = begin(&server, "/p2pdi.v1.Peer/Link");
    let started = Instant::now();
    while !ended.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(started.elapsed() < Duration::from_secs(30), "the body is not ended");
        let _ended = dripping.send(bytes(1));
        streaming.send(bytes(1)).unwrap();
    }
    assert_eq!(ended.await.unwrap(), "REQUEST_TIMEOUT");
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    // It is past the limit, too.
    drop(streaming);
    assert_eq!(open.await.unwrap(), "ok");
}

#[tokio::test]
async fn unfinished_bodies_stay_within_the_memory_and_small_requests_are_served() {
    const MEMORY: usize = 4 << 20;
    let (server, bodies) = server(Duration::from_secs(60), MEMORY);
    let flood: Vec<_> = (0..24).map(|_| begin(&server, "/")).collect();
    for (sender, _) in &flood {
        let _refused = sender.send(bytes(FIRST_BYTES / 4));
    }
    for _ in 0..16 {
        for (sender, _) in &flood {
            let _refused = sender.send(bytes(FIRST_BYTES));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let used = |pool: &Pool| pool.used.lock().unwrap().bytes;
        assert!(used(&bodies.first_bytes) + used(&bodies.further_bytes) <= MEMORY);
    }
    // All are of one network, which has half of it: of 1.5 MiB of further bytes, six bodies of 240 KiB.
    let refused = flood.iter().filter(|(_, answer)| answer.is_finished()).count();
    assert!((10..24).contains(&refused), "{refused} of 24 are refused at once");
    let (small, answer) = begin(&server, "/");
    small.send(bytes(1_000)).unwrap();
    drop(small);
    assert_eq!(answer.await.unwrap(), "ok");
    for (sender, answer) in flood {
        drop(sender);
        let answer = answer.await.unwrap();
        assert!(answer == "ok" || answer == "OVERLOADED", "{answer}");
    }
    for pool in [&bodies.first_bytes, &bodies.further_bytes] {
        let used = pool.used.lock().unwrap();
        assert_eq!((used.bytes, used.by_network.len()), (0, 0), "all is given back");
    }
}

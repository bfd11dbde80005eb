use super::{
    memory::{FIRST_BYTES, Pool},
    *,
};
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
async fn a_body_or_a_message_that_drips_is_ended_at_the_time_limit_and_a_stream_is_not() {
    let (server, _) = server(Duration::from_millis(500), 1 << 20);
    let (dripping, ended) = begin(&server, "/");
    let (streaming, open) = begin(&server, "/p2pdi.v1.Peer/Link");
    // One message whose rest does not come, after a whole one.
    let (stuck, cut) = begin(&server, "/p2pdi.v1.Peer/Link");
    stuck.send(Ok(Bytes::from_static(b"\0\0\0\0\x01x\0\0\0\0\x09"))).unwrap();
    let started = Instant::now();
    while !ended.is_finished() || !cut.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(started.elapsed() < Duration::from_secs(30), "the body is not ended");
        let _ended = dripping.send(bytes(1));
        let _ended = stuck.send(Ok(Bytes::new()));
        streaming.send(Ok(Bytes::from_static(b"\0\0\0\0\x02xx"))).unwrap();
    }
    assert_eq!(ended.await.unwrap(), "REQUEST_TIMEOUT");
    assert_eq!(cut.await.unwrap(), "REQUEST_TIMEOUT");
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    // It is past the limit, too.
    drop(streaming);
    assert_eq!(open.await.unwrap(), "ok");
}

#[tokio::test]
async fn unfinished_messages_of_streams_use_the_memory_of_bodies_and_whole_ones_none() {
    let (server, bodies) = server(Duration::from_secs(60), 4 << 20);
    let used = || {
        [&bodies.memory.first_bytes, &bodies.memory.further_bytes]
            .map(|pool| pool.used.lock().unwrap().bytes)
            .iter()
            .sum::<usize>()
    };
    let wait_for = async |bytes: usize| {
        let started = Instant::now();
        while used() != bytes {
            assert!(started.elapsed() < Duration::from_secs(30), "{} bytes are used, {bytes} expected", used());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (stream, answer) = begin(&server, "/p2pdi.v1.Peer/Link");
    stream.send(Ok([&b"\0\0\x03\0\0"[..], &[7; 100_000]].concat().into())).unwrap();
    wait_for(100_005).await;
    stream.send(bytes(0x30000 - 100_000)).unwrap();
    wait_for(0).await;
    stream.send(Ok(Bytes::from_static(b"\0\0\0\0\x09xx"))).unwrap();
    wait_for(7).await;
    drop(stream);
    assert_eq!(answer.await.unwrap(), "ok");
    wait_for(0).await;
    let flood: Vec<_> = (0..24).map(|_| begin(&server, "/p2pdi.v1.Peer/Link")).collect();
    for (stream, _) in &flood {
        let _refused = stream.send(Ok([&b"\0\0\x10\0\0"[..], &[7; 200_000]].concat().into()));
    }
    let started = Instant::now();
    while flood.iter().filter(|(_, answer)| answer.is_finished()).count() < 10 {
        assert!(started.elapsed() < Duration::from_secs(30), "too few are refused");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for (stream, answer) in flood {
        drop(stream);
        let answer = answer.await.unwrap();
        assert!(answer == "ok" || answer == "OVERLOADED", "{answer}");
    }
    wait_for(0).await;
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
        assert!(used(&bodies.memory.first_bytes) + used(&bodies.memory.further_bytes) <= MEMORY);
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
    for pool in [&bodies.memory.first_bytes, &bodies.memory.further_bytes] {
        let used = pool.used.lock().unwrap();
        assert_eq!((used.bytes, used.by_network.len()), (0, 0), "all is given back");
    }
}

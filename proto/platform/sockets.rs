//! Options of sockets.

use tokio::net::TcpStream;

/// Limits how many bytes the kernel takes from the program and has not sent yet (`TCP_NOTSENT_LOWAT`, tcp(7)). What is sent and not
/// acknowledged does not count, so a long path is not slower. Where the system has no such limit, or refuses, its own buffers are the limit.
pub fn limit_unsent(stream: &TcpStream, bytes: u32) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(bytes) {
        tracing::debug!(%error, "cannot limit the unsent bytes of a connection");
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, bytes);
}

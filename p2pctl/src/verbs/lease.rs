//! register, keepalive, leave.

use crate::{
    args::{Expire, Global, Register},
    failure::{Failure, Outcome},
    printer::{Printer, proto_span},
    registry_client::{RegistrySession, SavedCookie},
};
use p2pdi::{
    cookie::Cookie,
    endpoint::Endpoint,
    name::PeerName,
    selector::validate_labels,
    status::Reason,
    v1::{FreeNameRequest, KeepAliveRequest, LeaveRequest, PeerRecord, RegisterRequest},
};
use peerd::config::{PORT_DEFAULT, local_address_towards};
use std::net::SocketAddr;

pub(super) async fn register(global: &Global, args: Register, printer: Printer) -> Outcome {
    let name = match args.name {
        Some(name) => name,
        None => global
            .dial
            .certified_name()
            .or_else(|| PeerName::from_host_name(&gethostname::gethostname().to_string_lossy()))
            .ok_or_else(|| Failure::usage("this host's name cannot be a peer's name").hint("give a name with --name"))?,
    };
    let endpoint = match args.endpoint {
        Some(endpoint) => endpoint,
        None => {
            let ip = global.registries().iter().find_map(local_address_towards).ok_or_else(|| {
                Failure::usage("this machine's address towards the registry is not known")
                    .hint("give one with --endpoint HOST:PORT")
            })?;
            Endpoint::from(SocketAddr::new(ip, PORT_DEFAULT))
        }
    };
    let labels = args.labels.into_iter().collect();
    validate_labels(&labels)?;
    let file = SavedCookie::reserve(global.state.as_deref(), &global.registries())?;
    // The cookie of an earlier registration lets the record move to another endpoint.
    let kept = SavedCookie::read(global.state.as_deref(), &global.registries())?.filter(|kept| kept.name == name);
    let mut session = RegistrySession::new(&global.access(), kept.as_ref());
    let request = RegisterRequest {
        name: name.to_string(),
        endpoint: endpoint.to_string(),
        labels,
        network: global.network.to_string(),
        ..Default::default()
    };
    let mut answer = session.call(request, |mut client, request| async move { client.register(request).await }).await?;
    let cookie: Cookie = answer.cookie.parse().map_err(|_| Failure::refused("the registry gave a malformed cookie"))?;
    file.write(&name, &cookie)?;
    // The cookie is a secret: it is in its file and never printed.
    answer.cookie.clear();
    printer.message(&answer, || {
        let times = answer.peer.as_ref().map_or(1, |peer| peer.registration_count);
        format!(
            "registered {name} at {endpoint} for {}, registration {times} in 30 days\nsend the first keepalive within {}",
            proto_span(answer.ttl),
            proto_span(answer.keep_alive_interval)
        )
    })?;
    Ok(())
}

pub(super) async fn keepalive(global: &Global, printer: Printer) -> Outcome {
    let kept = kept(global)?;
    let mut session = RegistrySession::new(&global.access(), Some(&kept));
    let keep_alive = KeepAliveRequest::default();
    let answer = session.call(keep_alive, |mut client, request| async move { client.keep_alive(request).await }).await?;
    printer.message(&answer, || {
        let name = answer.peer.as_ref().map_or(kept.name.as_str(), |peer: &PeerRecord| &peer.name);
        format!(
            "{name} is active for {}, next keepalive within {}",
            proto_span(answer.ttl),
            proto_span(answer.keep_alive_interval)
        )
    })?;
    Ok(())
}

pub(super) async fn leave(global: &Global, printer: Printer) -> Outcome {
    let kept = kept(global)?;
    let mut session = RegistrySession::new(&global.access(), Some(&kept));
    let left = session.call(LeaveRequest {}, |mut client, request| async move { client.leave(request).await }).await;
    let answer = match left {
        // There is no lease any more, so the cookie is of no use.
        Err(failure) if failure.is_reason(Reason::CookieUnknown) => {
            let name = kept.name.clone();
            kept.forget()?;
            return Err(Failure::refused(format!(
                "{name} has no lease to end: the registry does not know its cookie (any more)"
            ))
            .hint("the saved cookie was invalid and is deleted"));
        }
        left => left?,
    };
    printer.message(&answer, || format!("{} left; the registry keeps the name for you for a while", kept.name))?;
    kept.mark_left()
}

/// For operators: frees a name, whoever has it.
pub(super) async fn expire(global: &Global, args: &Expire, printer: Printer) -> Outcome {
    let name = args.name.to_string();
    let mut session = RegistrySession::new(&global.access(), None);
    let request = FreeNameRequest { name: name.clone() };
    let answer = session.call(request, |mut client, request| async move { client.free_name(request).await }).await?;
    printer.message(&answer, || match answer.was_held {
        true => format!("{name} is free; its cookie is not valid any more"),
        false => format!("nobody had {name}"),
    })?;
    Ok(())
}

fn kept(global: &Global) -> Outcome<SavedCookie> {
    SavedCookie::read(global.state.as_deref(), &global.registries())?
        .filter(|kept| !kept.left)
        .ok_or_else(|| Failure::refused(format!("not registered with {}", global.channel())).hint("run `p2pctl register` first"))
}

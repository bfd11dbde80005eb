//! A small network of real programs.

use super::{
    http,
    process::{Ended, Server},
    wait::until,
    world::World,
};

/// A registry and the peers `fff-a` (RFCs 48 and 2324) and `fff-c` (RFCs 48, 49 and 8881).
pub struct Network {
    // Dropped in this order: the peers first, so that each can still leave the registry.
    pub a: Server,
    pub c: Server,
    pub registry: Server,
    pub world: World,
}

impl Network {
    /// Starts it and waits until all peers are registered and have indexed their shares.
    pub fn start() -> Self {
        let world = World::new();
        let registry = world.registry(&[]);
        world.share("share-a", &[48, 2324]);
        world.share("share-c", &[48, 49, 8881]);
        let a = world.peer("fff-a", &registry, &["--share", "share-a", "--label", "zone=west"]);
        let c = world.peer("fff-c", &registry, &["--share", "share-c", "--label", "zone=east"]);
        for peer in [&a, &c] {
            ready(peer);
        }
        Self { a, c, registry, world }
    }

    pub fn p2pctl(&self, arguments: &[&str]) -> Ended {
        self.world.p2pctl(&self.registry, arguments)
    }
}

/// Waits until a server says that it is ready.
#[track_caller]
pub fn ready(server: &Server) {
    until("a server gets ready", || http::get(server.address, "/readyz", &[]).status == 200);
}

/// A server's status page as JSON.
pub fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&http::get(server.address, "/", &[("accept", "application/json")]).body).unwrap()
}

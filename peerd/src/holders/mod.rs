//! Which peers hold a document: the directory of known peers, the poll of their indexes, the search for holders, and announces to the
//! tracker of swarms.
//!
//! - `search`: asks ever more peers until it knows enough, in the order of `asking_order`; `round` asks some at once, for as long as `patience` says.
//! - `find_peers`: what a search needs to know of the network; `network_peers`: the network as a running peer knows it.
//! - `evidence`, `settlement`: what peers said, and which content a name means.
//! - `listing`: the documents of many peers.
//! - `who_has`: a question to all peers of the mesh, and the answers to those of others; `answer_choice`: which holders answer.
//!   `through_peers`: the same question of a client that is no peer of the mesh.
//! - `candidate`: a peer that may be asked. `tracker`: who knows the members of a swarm, as a registry does; `announcer`: announces one document while it is fetched or served.

pub mod announcer;
mod answer_choice;
mod asking_order;
pub mod candidate;
mod evidence;
pub mod find_peers;
mod listed;
pub mod listing;
pub mod network_peers;
mod patience;
pub(crate) mod peer_directory;
pub(crate) mod poll;
pub mod rfc_query;
mod round;
pub mod search;
pub mod settlement;
pub mod source;
pub mod through_peers;
pub mod tracker;
pub(crate) mod who_has;

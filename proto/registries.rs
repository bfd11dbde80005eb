//! How a client calls the registry of its network, of which there may be several replicas: any of them answers any call.

mod channel;
mod choice;
mod connections;
mod lookup;
mod repeat;

pub use channel::RegistryChannel;
pub use choice::Place;
pub use lookup::Lookup;

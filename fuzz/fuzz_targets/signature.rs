#![no_main]

use p2pdi::{signed::Proof, v1::Signature};
use prost::Message as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(signature) = Signature::decode(data) else { return };
    let Ok(proof) = Proof::try_from(signature.clone()) else { return };
    // What is passed on is what arrived.
    assert_eq!(Signature::from(proof), signature);
});

//! Announce: from raw values to validated ones, and from refusals to statuses.

use crate::swarms::{Announce, Caller, DocumentKey, HOLDERS_MAX, ReportedHolder, TooManySwarms, WANT_MAX};
use p2pdi::{
    content::{ContentHash, Pieces},
    cookie::CookieHash,
    endpoint::Endpoint,
    field::InvalidField,
    id::PeerId,
    name::PeerName,
    selector::LABEL_MAX_BYTES,
    status::Reason,
    v1::{AnnounceRequest, Contact, PeerRecord, SwarmPeer},
};
use tonic::Status;

/// The label that says where a peer is.
const ZONE_LABEL: &str = "zone";

/// The announce, and where an observer serves what it has.
pub(crate) fn parse(request: AnnounceRequest) -> Result<(Announce, Option<Endpoint>), InvalidField> {
    let AnnounceRequest { blake3, size, had, done, endpoint, holders, want, searched, starved } = request;
    let document = DocumentKey { hash: ContentHash::from_field(&blake3)?, size: Pieces::of_size(size)?.size() };
    if had > size {
        return Err(InvalidField::new("had", format!("{had} bytes, which is more than the size of {size}")));
    }
    if holders.len() > HOLDERS_MAX {
        return Err(InvalidField::new("holders", format!("{} holders; at most {HOLDERS_MAX} may be reported", holders.len())));
    }
    let endpoint = if endpoint.is_empty() { None } else { Some(endpoint.parse()?) };
    let holders = holders.into_iter().map(holder).collect::<Result<_, _>>()?;
    let want = if want == 0 { WANT_MAX } else { usize::try_from(want).unwrap_or(WANT_MAX).min(WANT_MAX) };
    Ok((Announce { document, had, done, holders, want, searched, starved }, endpoint))
}

fn holder(reported: SwarmPeer) -> Result<ReportedHolder, InvalidField> {
    let SwarmPeer { peer, zone, .. } = reported;
    let Contact { id, name, endpoint } = peer.ok_or_else(|| InvalidField::new("holders", "a holder without `peer`"))?;
    if zone.len() > LABEL_MAX_BYTES {
        return Err(InvalidField::new("holders", format!("a zone of {} bytes; at most {LABEL_MAX_BYTES} fit", zone.len())));
    }
    let endpoint: Endpoint = endpoint.parse()?;
    // Whoever found it may know no more than the endpoint.
    let id = if id.is_empty() { None } else { Some(PeerId::from_field("holders", &id)?) };
    let name = if name.is_empty() { String::new() } else { name.parse::<PeerName>()?.to_string() };
    Ok(ReportedHolder { id, name: name.into(), endpoint: endpoint.as_str().into(), zone: zone.into() })
}

/// The caller with this record. `endpoint`: what it says in its announce, which only an observer may.
pub(crate) fn caller(cookie: CookieHash, record: PeerRecord, endpoint: Option<Endpoint>) -> Result<Caller, InvalidField> {
    let PeerRecord { id, name, endpoint: registered, mut labels, load, .. } = record;
    let endpoint = match endpoint {
        Some(_) if !registered.is_empty() => {
            let problem = "only an observer gives its endpoint here; the endpoint of a peer is that of its registration";
            return Err(InvalidField::new("endpoint", problem));
        }
        Some(endpoint) => endpoint.as_str().into(),
        None => registered.into(),
    };
    Ok(Caller {
        cookie,
        id: PeerId::from_field("id", &id)?,
        name: name.into(),
        endpoint,
        zone: labels.remove(ZONE_LABEL).unwrap_or_default().into(),
        uploads: load.map_or(0, |load| load.uploads),
    })
}

impl From<TooManySwarms> for Status {
    fn from(error: TooManySwarms) -> Self {
        let message = match error {
            TooManySwarms::OfCaller { max } => {
                format!("this peer is in {max} swarms, which is the limit for one peer; end the announces of some with `done`")
            }
            TooManySwarms::InAll => {
                "this registry keeps as many swarms as it may; announce again later, and search for holders meanwhile".to_owned()
            }
        };
        Reason::TooManySwarms.status(message)
    }
}

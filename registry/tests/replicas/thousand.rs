//! A thousand peers, and all that happens to replicas.

use super::{crowd::Crowd, three::*};
use crate::{cable::Cable, etcd::Etcd, support::*};
use p2pdi::status::Reason;
use rustix::process::Signal;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(6);
const PEERS: usize = 1_000;
/// Fewer that end at once than the brake holds back.
const FEW: usize = 10;
/// How long the program of a replica stands still.
const PAUSE: Duration = Duration::from_secs(60);

/// Three replicas: whoever calls one, another one included, passes through its cable.
struct Three {
    etcd: Etcd,
    /// From the third one to etcd.
    to_etcd: Cable,
    cables: Vec<Cable>,
    programs: Vec<Program>,
}

impl Three {
    async fn start(prefix: &str) -> Option<Self> {
        let etcd = Etcd::start()?;
        let to_etcd = Cable::to(etcd.client_port(0)).await;
        let mut three = Self { etcd, to_etcd, cables: Vec::new(), programs: Vec::new() };
        for index in 0..3 {
            let cable = Cable::to(0).await;
            let program = three.program(index, prefix, &cable);
            three.cables.push(cable);
            three.programs.push(program);
        }
        three.settled().await;
        Some(three)
    }

    fn program(&self, index: usize, prefix: &str, cable: &Cable) -> Program {
        let endpoints = if index == 2 { vec![format!("http://{}", self.to_etcd.address)] } else { self.etcd.endpoints() };
        let program = program(&endpoints, prefix, TTL, Some(cable.address));
        cable.plug(program.address.port());
        program
    }

    async fn settled(&self) {
        all_settled(&self.programs.iter().map(|program| program.address).collect::<Vec<_>>()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_peers_nobody_is_lost_while_replicas_are_paused_for_a_minute_cut_off_and_killed() {
    let Some(mut three) = Three::start("/thousand").await else { return };
    // Past the cables, which are between replicas here.
    let clients: Vec<Client> = three.programs.iter().map(Program::client).collect();
    let (mut first, mut third) = (clients[0].clone(), clients[2].clone());
    let mut crowd = Crowd::new(TTL, &clients);
    crowd.join(&[0, 1, 2], PEERS).await;

    three.programs[1].signal(Signal::STOP);
    crowd.silence(FEW);
    crowd.join(&[0], FEW).await;
    crowd.are_alive(&mut first, PAUSE).await;
    // It still takes itself for the keeper of its shards.
    three.programs[1].signal(Signal::CONT);
    crowd.are_alive(&mut first, TTL).await;
    three.settled().await;

    three.to_etcd.cut();
    crowd.silence(FEW);
    crowd.join(&[0, 1], FEW).await;
    crowd.are_alive(&mut first, 3 * TTL).await;
    // And no replica reaches any other one.
    three.cables.iter().for_each(Cable::cut);
    crowd.silence(FEW);
    crowd.join(&[0, 1], FEW).await;
    crowd.are_alive(&mut first, 3 * TTL).await;
    three.to_etcd.mend();
    three.cables.iter().for_each(Cable::mend);
    three.settled().await;

    three.programs.remove(0).kill();
    crowd.silence(FEW);
    crowd.join(&[1, 2], FEW).await;
    crowd.are_alive(&mut third, 3 * TTL).await;
    three.settled().await;
    crowd.are_all_that_is_listed(&mut third).await;
    crowd.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_all_killed_at_once_and_start_again_have_lost_nobody() {
    let Some(mut three) = Three::start("/all").await else { return };
    // By the cables: the programs that start again are where the others were.
    let clients: Vec<Client> = three.cables.iter().map(|cable| client(cable.address)).collect();
    let mut crowd = Crowd::new(TTL, &clients);
    crowd.join(&[0, 1, 2], 100).await;
    crowd.silence(FEW);
    three.programs.drain(..).for_each(Program::kill);
    for index in 0..3 {
        let program = three.program(index, "/all", &three.cables[index]);
        three.programs.push(program);
    }
    for client in &clients {
        let refused = async || keep_alive(&mut client.clone(), &"5a".repeat(16)).await.err();
        eventually("it answers", async || refused().await.filter(|status| Reason::of(status) == Some(Reason::CookieUnknown)))
            .await;
    }
    crowd.are_alive(&mut clients[0].clone(), 2 * TTL).await;
    three.settled().await;
    crowd.join(&[0, 1, 2], FEW).await;
    crowd.are_all_that_is_listed(&mut clients[1].clone()).await;
    crowd.end().await;
}

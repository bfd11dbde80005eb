//! Max-min fair rates of flows that share links, as TCP shares them.

/// One flow: the bytes a second that it has in the end, at most `limit`.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub from: usize,
    pub to: usize,
    pub limit: f64,
    pub rate: f64,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    left: f64,
    flows: u32,
    share: f64,
    is_bottleneck: bool,
}

/// Room for the links of all nodes, kept between calls.
#[derive(Debug, Default)]
pub struct Rates {
    up: Vec<Link>,
    down: Vec<Link>,
    open: Vec<u32>,
}

/// More rounds change little.
const ROUNDS_MAX: usize = 16;

impl Rates {
    /// Sets the rates of `flows`: all flows at a link that is the bottleneck of each of them are settled in one round.
    pub fn share(&mut self, up: &[f64], down: &[f64], flows: &mut [Flow]) {
        let link = |capacity: &f64| Link { left: *capacity, flows: 0, share: 0.0, is_bottleneck: true };
        self.up.clear();
        self.up.extend(up.iter().map(link));
        self.down.clear();
        self.down.extend(down.iter().map(link));
        for flow in flows.iter() {
            self.up[flow.from].flows += 1;
            self.down[flow.to].flows += 1;
        }
        self.open.clear();
        self.open.extend(0..flows.len() as u32);
        for round in 0..ROUNDS_MAX {
            for link in self.up.iter_mut().chain(&mut self.down) {
                link.share = link.left.max(0.0) / f64::from(link.flows.max(1)) * (1.0 + 1e-9);
                link.is_bottleneck = true;
            }
            for index in &self.open {
                let flow = &flows[*index as usize];
                let (up, down) = (self.up[flow.from].share, self.down[flow.to].share);
                let least = up.min(down).min(flow.limit);
                self.up[flow.from].is_bottleneck &= up <= least * (1.0 + 1e-6);
                self.down[flow.to].is_bottleneck &= down <= least * (1.0 + 1e-6);
            }
            let (links_up, links_down) = (&mut self.up, &mut self.down);
            self.open.retain(|index| {
                let flow = &mut flows[*index as usize];
                let (up, down) = (&mut links_up[flow.from], &mut links_down[flow.to]);
                flow.rate = up.share.min(down.share).min(flow.limit);
                let is_settled = up.is_bottleneck || down.is_bottleneck || flow.limit <= flow.rate || round + 1 == ROUNDS_MAX;
                if is_settled {
                    for link in [up, down] {
                        link.left -= flow.rate;
                        link.flows -= 1;
                    }
                }
                !is_settled
            });
            if self.open.is_empty() {
                return;
            }
        }
    }
}

#[test]
fn flows_share_links_max_min_fair() {
    let flow = |from, to| Flow { from, to, limit: f64::INFINITY, rate: 0.0 };
    let mut flows = [flow(0, 1), flow(0, 2), flow(1, 2), Flow { limit: 1.0, ..flow(2, 0) }];
    Rates::default().share(&[10.0, 10.0, 10.0], &[2.0, 100.0, 9.0], &mut flows);
    let rates: Vec<_> = flows.iter().map(|flow| (flow.rate * 1e3).round() / 1e3).collect();
    assert_eq!(rates, [5.5, 4.5, 4.5, 1.0]);
}

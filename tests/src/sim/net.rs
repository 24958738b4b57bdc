//! The network between nodes, and between customers and nodes: it loses, delays, duplicates and
//! reorders, and is cut, one way too.
//!
//! * It decides: when a packet arrives, how often, or that it does not.
//! * It never does: look into a packet.
//! * Invariant: each directed link draws from a seed of its own, so that one more packet here shifts
//!   nothing there.

use rhumb_core::rng::{Rng, Seed};

use super::agenda::{MS, Micros};

/// How bad a network is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Share of packets lost.
    pub loss: f64,
    /// Share of packets that come twice.
    pub twice: f64,
    /// Share of packets that come much later, so that others overtake them.
    pub late: f64,
    /// How much later those come at most.
    pub late_by: Micros,
}

/// When the copies of one packet arrive.
pub type Arrivals = [Option<Micros>; 2];

/// One directed link.
#[derive(Debug)]
pub struct Link {
    rng: Rng,
    delay: Micros,
    /// Each cause of a cut counts once; the link is whole when none is left.
    cuts: u32,
}

impl Link {
    fn arrivals(&mut self, at: Micros, weather: &Weather) -> Arrivals {
        if self.cuts > 0 {
            return [None, None];
        }
        // One draw serves all decisions: 16 bits each for loss, copies, lateness and jitter.
        let bits = self.rng.u64();
        let share = |shift: u32| ((bits >> shift) & 0xffff) as f64 / 65_536.0;
        if share(0) < weather.loss {
            return [None, None];
        }
        let jitter = (self.delay as f64 * 0.3 * share(48)) as Micros;
        let mut first = at + self.delay + jitter;
        if share(32) < weather.late {
            first += self.rng.below(weather.late_by.max(1));
        }
        let second = (share(16) < weather.twice)
            .then(|| at + self.delay + self.rng.below(weather.late_by.max(self.delay).max(1)));
        [Some(first), second]
    }
}

/// All links.
#[derive(Debug)]
pub struct Net {
    nodes: usize,
    /// From each node to each node.
    links: Vec<Link>,
    /// Between each region's customers and each node: there and back draw from one seed.
    customers: Vec<Link>,
    /// How bad it is between nodes.
    pub weather: Weather,
    /// How bad it is between customers and nodes.
    pub customer_weather: Weather,
}

/// Within a region, and from a customer to its own region.
const NEAR: Micros = MS / 2;

impl Net {
    /// A network between nodes that stand in these regions (numbers, one a node), with delays drawn
    /// for each pair of regions.
    #[must_use]
    pub fn new(seed: &Seed, regions: &[usize]) -> Self {
        let nodes = regions.len();
        let count = regions.iter().max().map_or(0, |last| last + 1);
        let mut far = seed.child("distances").rng();
        let mut delays = vec![NEAR; count * count];
        for a in 0..count {
            for b in 0..a {
                let delay = MS * far.between(5, 120);
                (delays[a * count + b], delays[b * count + a]) = (delay, delay);
            }
        }
        let link = |label: String, delay| Link { rng: seed.child(label).rng(), delay, cuts: 0 };
        let links = (0..nodes * nodes)
            .map(|i| {
                link(
                    format!("{}>{}", i / nodes, i % nodes),
                    delays[regions[i / nodes] * count + regions[i % nodes]],
                )
            })
            .collect();
        let customers = (0..count * nodes)
            .map(|i| {
                link(
                    format!("c{}>{}", i / nodes, i % nodes),
                    delays[(i / nodes) * count + regions[i % nodes]],
                )
            })
            .collect();
        Self { nodes, links, customers, weather: Weather::default(), customer_weather: Weather::default() }
    }

    /// When a packet from one node to another arrives.
    pub fn between_nodes(&mut self, at: Micros, from: usize, to: usize) -> Arrivals {
        self.links[from * self.nodes + to].arrivals(at, &self.weather)
    }

    /// When a packet from a region's customer to a node, or back, arrives.
    pub fn with_customer(&mut self, at: Micros, region: usize, node: usize) -> Arrivals {
        self.customers[region * self.nodes + node].arrivals(at, &self.customer_weather)
    }

    /// Cuts one direction between two nodes, once more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.links[from * self.nodes + to].cuts += 1;
    }

    /// Takes one cut back.
    pub fn mend(&mut self, from: usize, to: usize) {
        let link = &mut self.links[from * self.nodes + to];
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// Whether packets pass this way.
    #[must_use]
    pub fn open(&self, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].cuts == 0
    }

    /// Takes back every cut and makes the weather fine.
    pub fn heal(&mut self) {
        self.links.iter_mut().for_each(|link| link.cuts = 0);
        self.weather = Weather::default();
        self.customer_weather = Weather::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> Net {
        Net::new(&Seed::new(1), &[0, 0, 1])
    }

    fn arrived(net: &mut Net, from: usize, to: usize) -> usize {
        (0..1_000).map(|i| net.between_nodes(i, from, to).iter().flatten().count()).sum()
    }

    #[test]
    fn a_cut_is_one_way_and_needs_as_many_mends() {
        let mut net = net();
        net.cut(0, 2);
        net.cut(0, 2);
        net.mend(0, 2);
        assert_eq!((arrived(&mut net, 0, 2), arrived(&mut net, 2, 0)), (0, 1_000));
        net.mend(0, 2);
        assert_eq!(arrived(&mut net, 0, 2), 1_000);
    }

    #[test]
    fn weather_loses_doubles_and_reorders() {
        let mut net = net();
        net.weather = Weather { loss: 0.3, twice: 0.0, late: 0.0, late_by: 0 };
        assert!((600..800).contains(&arrived(&mut net, 0, 1)));
        net.weather = Weather { loss: 0.0, twice: 0.5, late: 0.0, late_by: 0 };
        assert!((1_400..1_600).contains(&arrived(&mut net, 0, 1)));
        net.weather = Weather { loss: 0.0, twice: 0.0, late: 0.5, late_by: 1_000_000 };
        let times: Vec<_> = (0..100).filter_map(|i| net.between_nodes(i * 100, 0, 1)[0]).collect();
        assert!(!times.is_sorted());
    }

    #[test]
    fn a_packet_more_on_one_link_shifts_nothing_on_another() {
        let (mut a, mut b) = (net(), net());
        a.between_nodes(0, 0, 1);
        assert_eq!(a.between_nodes(5, 0, 2), b.between_nodes(5, 0, 2));
    }
}

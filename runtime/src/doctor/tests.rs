use super::*;

const GIB: u64 = 1 << 30;

/// A machine that is well.
fn well() -> Facts {
    Facts {
        settings: Some(Ok(Wants::default())),
        udp: Some((16 << 20, 16 << 20)),
        files: Some((65_536, 65_536)),
        clock: Some(Discipline {
            disciplined: true,
            max_error: Duration::from_millis(20),
            estimated_error: Duration::from_micros(40),
            frequency_ppb: 0,
        }),
        disk: Some(Ok(Syncs { count: 200, p50: Duration::from_micros(900), p99: Duration::from_millis(4) })),
        space: Some((50 * GIB, 100 * GIB)),
        memory: Some((8 * GIB, 16 * GIB)),
        certificate: Some(Ok(certified())),
        data: Some(("/var/lib/rhumb".into(), DataDirectory::Free)),
        ports: vec![("quic port", ([127, 0, 0, 1], 7001).into(), Port::Free)],
    }
}

fn certified() -> Certified {
    let name = "node eu-central/n1".to_owned();
    Certified { holder: name.clone(), expected: name, age: Age::Fresh, left: 80 * 86_400, refused: None }
}

/// Changes one thing, and says which check is not well then, and how it ends.
fn after(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Verdict)> {
    let mut facts = well();
    change(&mut facts);
    let checks = facts.judge();
    for check in &checks {
        assert_eq!(check.verdict == Verdict::Ok, check.advice.is_none(), "{check:?}");
    }
    let bad = checks.iter().filter(|check| check.verdict != Verdict::Ok);
    bad.map(|check| (check.name, check.verdict)).collect()
}

#[test]
fn a_machine_that_is_well_passes_every_check() {
    assert_eq!(after(|_| {}), []);
    assert_eq!(well().judge().len(), 10);
    assert_eq!(Facts::default().judge(), [], "what is not known is not judged");
}

#[test]
fn each_trouble_is_told_as_what_it_is() {
    use Verdict::{Fail, Warn};
    let clock = |change: fn(&mut Discipline)| after(|facts| change(facts.clock.as_mut().expect("known")));
    let cert = |change: fn(&mut Certified)| {
        let mut certified = certified();
        change(&mut certified);
        after(|facts| facts.certificate = Some(Ok(certified)))
    };
    let disk = |p50: u64, p99: u64| {
        let (p50, p99) = (Duration::from_micros(p50), Duration::from_micros(p99));
        after(|facts| facts.disk = Some(Ok(Syncs { count: 200, p50, p99 })))
    };
    let data = |state| after(|facts| facts.data = Some(("d".into(), state)));
    let port = |port: Port, runs| {
        after(|facts| {
            facts.ports[0].2 = port;
            if runs {
                facts.data = Some(("d".into(), DataDirectory::InUse));
            }
        })
    };
    for (found, want) in [
        (after(|f| f.settings = Some(Err(vec!["global.toml:3:1: …".into()]))), vec![("settings", Fail)]),
        (after(|f| f.udp = Some((212_992, 16 << 20))), vec![("udp buffers", Warn)]),
        (after(|f| f.udp = Some((8 << 20, (8 << 20) - 1))), vec![("udp buffers", Warn)]),
        (after(|f| f.udp = Some((8 << 20, 8 << 20))), vec![]),
        (after(|f| f.files = Some((16_383, 65_536))), vec![("open files", Warn)]),
        (after(|f| f.files = Some((1_023, 1_023))), vec![("open files", Fail)]),
        (clock(|c| c.disciplined = false), vec![("clock", Fail)]),
        (clock(|c| c.max_error = Duration::from_millis(250)), vec![]),
        (clock(|c| c.max_error = Duration::from_millis(251)), vec![("clock", Warn)]),
        (disk(900, 25_001), vec![("disk", Warn)]),
        (disk(900, 500_001), vec![("disk", Fail)]),
        (disk(2, 30), vec![("disk", Warn)]),
        (after(|f| f.disk = Some(Err(Unmeasured::Denied("read-only".into())))), vec![("disk", Fail)]),
        (after(|f| f.disk = Some(Err(Unmeasured::Stuck("10 s".into())))), vec![("disk", Fail)]),
        (after(|f| f.space = Some((GIB, 5 * GIB))), vec![("free space", Fail)]),
        (after(|f| f.space = Some((9 * GIB, 100 * GIB))), vec![("free space", Warn)]),
        (after(|f| f.memory = Some((100 << 20, 16 * GIB))), vec![("memory", Warn)]),
        (after(|f| f.memory = Some((100 << 20, 128 << 20))), vec![("memory", Fail)]),
        (cert(|c| c.age = Age::Wearing), vec![("certificate", Warn)]),
        (cert(|c| c.age = Age::Expired), vec![("certificate", Fail)]),
        (cert(|c| c.age = Age::NotYetValid), vec![("certificate", Fail)]),
        (cert(|c| c.holder = "node eu-central/n2".into()), vec![("certificate", Fail)]),
        (cert(|c| c.refused = Some("it was revoked".into())), vec![("certificate", Fail)]),
        (after(|f| f.certificate = Some(Err("no such file".into()))), vec![("certificate", Fail)]),
        (data(DataDirectory::InUse), vec![]),
        (data(DataDirectory::Empty), vec![("data", Fail)]),
        (data(DataDirectory::Lacks("hot")), vec![("data", Fail)]),
        (data(DataDirectory::Closed), vec![("data", Warn)]),
        (port(Port::InUse, false), vec![("quic port", Fail)]),
        (port(Port::InUse, true), vec![]),
        (port(Port::Denied("permission denied".into()), true), vec![("quic port", Fail)]),
    ] {
        assert_eq!(found, want);
    }
}

#[test]
fn advice_is_a_command_that_can_be_typed() {
    let mut facts = well();
    facts.udp = Some((212_992, 212_992));
    let checks = facts.judge();
    let udp = checks.iter().find(|check| check.name == "udp buffers").expect("judged");
    let advice = udp.advice.as_deref().expect("advised");
    let want = "printf '%s\\n' net.core.rmem_max=8388608 net.core.wmem_max=8388608 > /etc/sysctl.d/60-rhumb.conf && \
                sysctl -p /etc/sysctl.d/60-rhumb.conf";
    assert_eq!(advice, want);
}

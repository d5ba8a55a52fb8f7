//! A network inside this machine. Each host has its own address, and can be cut off from others.
//!
//! ```text
//!  this namespace                 namespaces cwfs<pid>h1, cwfs<pid>h2, …
//!  bridge cwfs<pid>b ──┬── cwfs<pid>v1 ═══ net   10.x.y.11
//!    10.x.y.1, .2, .3  ├── cwfs<pid>v2 ═══ net   10.x.y.12
//! ```
//!
//! To cut a host off from an address, a neighbour entry in its namespace maps the address to a link
//! address that no interface has. The packets vanish without an error, also those of open
//! connections.
//!
//! All names have the id of the process that made them. So the next process can remove the
//! interfaces and namespaces that a killed one left.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::Dice;

const PREFIX: &str = "cwfs";
/// A valid link address (of the locally administered ones) that no interface has.
const UNUSED_LINK_ADDRESS: &str = "02:00:00:00:00:01";

/// A bridge and its hosts. A process can have only one network: its names contain the process id.
#[derive(Debug)]
pub struct Network {
    name: String,
    /// The first three bytes of all addresses: 10, x and y.
    subnet: [u8; 3],
    hosts: u8,
}

impl Network {
    /// Creates `hosts` hosts, each in its own network namespace, and three addresses in this
    /// namespace.
    ///
    /// If this machine can't have network namespaces, prints that the test is skipped and returns
    /// `None`, or panics if `CACHEWFS_REQUIRE_NETNS` is set.
    #[expect(clippy::print_stdout, reason = "a skipped test has to say so")]
    pub fn create(hosts: u8) -> Option<Self> {
        remove_stale_networks();
        let pid = std::process::id();
        let network = Self {
            name: format!("{PREFIX}{pid}"),
            subnet: free_subnet(u64::from(pid)),
            hosts,
        };
        if let Err(reason) = network.set_up() {
            assert!(
                std::env::var_os("CACHEWFS_REQUIRE_NETNS").is_none(),
                "no network namespaces: {reason}"
            );
            println!("skipped: no network namespaces: {reason}");
            return None;
        }
        Some(network)
    }

    fn set_up(&self) -> Result<(), String> {
        let bridge = format!("{}b", self.name);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        for number in 1..=3 {
            let address = format!("{}/24", self.local_address(number));
            ip(&["addr", "add", &address, "dev", &bridge])?;
        }
        ip(&["link", "set", &bridge, "up"])?;
        for host in 1..=self.hosts {
            let (namespace, outer_end) = (self.namespace(host), format!("{}v{host}", self.name));
            ip(&["netns", "add", &namespace])?;
            let inner_end = ["peer", "name", "net", "netns", &namespace];
            ip(&[&["link", "add", &outer_end, "type", "veth"], &inner_end[..]].concat())?;
            ip(&["link", "set", &outer_end, "master", &bridge, "up"])?;
            let address = format!("{}/24", self.address(host));
            ip(&["-n", &namespace, "addr", "add", &address, "dev", "net"])?;
            ip(&["-n", &namespace, "link", "set", "net", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// Returns one of the three addresses of this namespace. `number` is 1, 2 or 3.
    pub fn local_address(&self, number: u8) -> Ipv4Addr {
        let [ten, x, y] = self.subnet;
        Ipv4Addr::new(ten, x, y, number)
    }

    /// Returns the address of a host. Hosts are numbered from 1.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        let [ten, x, y] = self.subnet;
        Ipv4Addr::new(ten, x, y, 10 + host)
    }

    /// Returns the name of a host's namespace.
    pub fn namespace(&self, host: u8) -> String {
        format!("{}h{host}", self.name)
    }

    /// From now on, what this namespace sends to the hosts leaves from this one of its addresses.
    pub fn leave_from(&self, number: u8) {
        let (subnet, bridge) = (
            format!("{}/24", self.local_address(0)),
            format!("{}b", self.name),
        );
        let source = self.local_address(number).to_string();
        ip(&["route", "replace", &subnet, "dev", &bridge, "src", &source]).unwrap();
    }

    /// Returns the command line in front of a program that runs in a host's network, and sees the
    /// same files as this process.
    pub fn within(&self, host: u8) -> Vec<String> {
        let file = format!("--net=/run/netns/{}", self.namespace(host));
        vec!["nsenter".to_owned(), file]
    }

    /// From now on, the host has no network: it knows no way to any address.
    pub fn unplug(&self, host: u8) {
        ip(&["-n", &self.namespace(host), "link", "set", "net", "down"]).unwrap();
    }

    /// From now on, the host has a network again.
    pub fn plug_in(&self, host: u8) {
        ip(&["-n", &self.namespace(host), "link", "set", "net", "up"]).unwrap();
    }

    /// From now on, all packets from the host to `address` vanish.
    pub fn cut(&self, host: u8, address: Ipv4Addr) {
        let (namespace, address) = (self.namespace(host), address.to_string());
        // A permanent entry doesn't expire, and the kernel sends no ARP requests to correct it.
        let unused = [
            "lladdr",
            UNUSED_LINK_ADDRESS,
            "dev",
            "net",
            "nud",
            "permanent",
        ];
        let replace = ["-n", &namespace, "neigh", "replace", &address];
        ip(&[&replace[..], &unused].concat()).unwrap();
    }

    /// From now on, packets from the host to `address` arrive again.
    pub fn reconnect(&self, host: u8, address: Ipv4Addr) {
        let (namespace, address) = (self.namespace(host), address.to_string());
        ip(&["-n", &namespace, "neigh", "del", &address, "dev", "net"]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the networks of processes that have ended without removing them.
fn remove_stale_networks() {
    let Ok(links) = fs::read_dir("/sys/class/net") else {
        return;
    };
    let links = links.filter_map(|link| link.ok()?.file_name().into_string().ok());
    let namespaces = namespaces();
    let of_process = |name: &String| {
        let rest = name.strip_prefix(PREFIX)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    };
    let mut owners: Vec<u32> = links
        .chain(namespaces)
        .filter_map(|name| of_process(&name))
        .collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in owners {
        if !Path::new("/proc").join(owner.to_string()).exists() {
            remove(&format!("{PREFIX}{owner}"));
        }
    }
}

/// Removes a network and the processes in it.
fn remove(name: &str) {
    for namespace in namespaces() {
        if namespace
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('h'))
        {
            let pids = ip(&["netns", "pids", &namespace]).unwrap_or_default();
            for pid in pids.lines() {
                Command::new("kill").args(["-9", pid]).output().ok();
            }
            ip(&["netns", "del", &namespace]).ok();
        }
    }
    // The end of a veth pair in this namespace may outlive the end in the removed namespace for a
    // moment.
    for host in 1..=9 {
        ip(&["link", "del", &format!("{name}v{host}")]).ok();
    }
    ip(&["link", "del", &format!("{name}b")]).ok();
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Returns a subnet in which this machine has no address yet.
fn free_subnet(seed: u64) -> [u8; 3] {
    let taken = ip(&["-4", "-o", "addr"]).unwrap_or_default();
    let mut dice = Dice::new(seed);
    loop {
        let [x, y] = [128, 0].map(|from| {
            let below = usize::from(u8::MAX - from);
            from + u8::try_from(dice.below(below)).unwrap()
        });
        if !taken.contains(&format!(" 10.{x}.{y}.")) {
            return [10, x, y];
        }
    }
}

/// Runs `ip`. Returns its output, or its standard error if it fails.
fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), stderr.trim()))
}

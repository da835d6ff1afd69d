//! `folkmoot init`: the files of a new cluster.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use folkmoot_proto::bootstrap::{Bootstrap, BootstrapMember};
use folkmoot_proto::limits::Limits;
use folkmoot_proto::{ClusterId, Digest, MemberId, WallTime};
use folkmoot_server::ServerConfig;
use folkmoot_server::config::{Endpoint, Log, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, Tls};
use serde_json::json;

use crate::args;
use crate::failure::Failure;
use crate::output::Output;
use crate::pki::{Authority, Credentials};

/// A member as it is named on the command line: `ID=HOST:PEERPORT/CLIENTPORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberSpec {
    pub(crate) id: MemberId,
    pub(crate) host: String,
    pub(crate) peer_port: u16,
    pub(crate) client_port: u16,
}

impl FromStr for MemberSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not of the form ID=HOST:PEERPORT/CLIENTPORT");
        let (id, address) = text.split_once('=').ok_or_else(bad)?;
        let (host, ports) = address.rsplit_once(':').ok_or_else(bad)?;
        let (peer, client) = ports.split_once('/').ok_or_else(bad)?;
        let id: u64 = id.parse().map_err(|_| bad())?;
        if id == 0 {
            return Err("members are numbered from 1".to_owned());
        }
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            id: MemberId(id),
            host: host.to_owned(),
            peer_port: peer.parse().map_err(|_| bad())?,
            client_port: client.parse().map_err(|_| bad())?,
        })
    }
}

/// What a new cluster is made of.
pub(crate) struct Plan<'a> {
    pub(crate) members: &'a [MemberSpec],
    pub(crate) segment_bytes: u64,
}

pub(crate) fn run(init: &args::Init, output: Output) -> Result<(), Failure> {
    let plan = Plan {
        members: &init.members,
        segment_bytes: init.segment_bytes,
    };
    let cluster = make(&plan, &init.out)?;
    let endpoints: Vec<_> = init.members.iter().map(client_address).collect();
    let out = init.out.display();
    let mut text = format!("cluster {cluster} is in {out}. Start each member with\n");
    for member in &init.members {
        text += &format!(
            "  folkmoot server --config {out}/member-{}/server.toml\n",
            member.id
        );
    }
    text += &format!(
        "and reach it with --context {out}/context.toml. \
         Keep {out}/ca.key safe: it makes members and clients."
    );
    let document = json!({ "cluster": cluster, "folder": init.out, "endpoints": endpoints });
    output.print(&text, &document)
}

/// Makes the folder whole, or not at all.
pub(crate) fn make(plan: &Plan<'_>, out: &Path) -> Result<ClusterId, Failure> {
    check(plan)?;
    let occupied = || {
        Failure::configuration(format!(
            "{} is there already and is not empty: nothing was written; name another folder",
            out.display()
        ))
    };
    match fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(occupied());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::file(out, &error)),
    }
    let partial = partial_name(out);
    let made = write_all(plan, &partial).and_then(|cluster| {
        // A folder that is there and empty is replaced, one that was filled meanwhile is not.
        fs::rename(&partial, out).map_err(|error| match error.kind() {
            std::io::ErrorKind::DirectoryNotEmpty => occupied(),
            _ => Failure::file(out, &error),
        })?;
        Ok(cluster)
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    made
}

fn partial_name(out: &Path) -> PathBuf {
    let name = out
        .file_name()
        .unwrap_or("cluster".as_ref())
        .to_string_lossy();
    out.with_file_name(format!(".{name}.partial-{}", std::process::id()))
}

fn check(plan: &Plan<'_>) -> Result<(), Failure> {
    let mut ids: Vec<_> = plan.members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != plan.members.len() {
        return Err(Failure::configuration("two members have the same number"));
    }
    if ![1, 3, 5].contains(&ids.len()) {
        return Err(Failure::configuration(format!(
            "a cluster has 1, 3 or 5 members, {} are named: an even number tolerates no more \
             failures than the odd one below it",
            ids.len()
        )));
    }
    let segments = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
    if !segments.contains(&plan.segment_bytes) || !plan.segment_bytes.is_multiple_of(4096) {
        return Err(Failure::configuration(format!(
            "a segment has between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX} bytes, \
             a multiple of 4096"
        )));
    }
    Ok(())
}

fn write_all(plan: &Plan<'_>, folder: &Path) -> Result<ClusterId, Failure> {
    let authority = Authority::generate().map_err(certificate_failure)?;
    let ca = &authority.credentials.certificate;
    let bootstrap = bootstrap(plan, ca);
    let bytes = bootstrap.to_bytes();
    make_folder(folder)?;
    write(&folder.join("bootstrap.json"), &bytes, PUBLIC)?;
    write_credentials(folder, "ca", &authority.credentials)?;
    let client = authority.client().map_err(certificate_failure)?;
    write_credentials(folder, "client", &client)?;
    write_context(folder, plan)?;
    for member in plan.members {
        let own = folder.join(format!("member-{}", member.id));
        make_folder(&own)?;
        let credentials = authority.member(member.id).map_err(certificate_failure)?;
        write_credentials(&own, "member", &credentials)?;
        write(&own.join("ca.pem"), ca.as_bytes(), PUBLIC)?;
        write(&own.join("bootstrap.json"), &bytes, PUBLIC)?;
        write(
            &own.join("server.toml"),
            server_toml(member, plan)?.as_bytes(),
            PUBLIC,
        )?;
    }
    Ok(bootstrap.cluster)
}

fn bootstrap(plan: &Plan<'_>, ca: &str) -> Bootstrap {
    // The authority's certificate is as good as random: its key was just made.
    let mut cluster = [0; 16];
    for (byte, of) in cluster.iter_mut().zip(Digest::of(ca.as_bytes()).0) {
        *byte = of;
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let created = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let members = plan.members.iter().map(|member| BootstrapMember {
        id: member.id,
        peer_address: peer_address(member),
        client_address: client_address(member),
    });
    Bootstrap {
        cluster: ClusterId(cluster),
        created: WallTime(created),
        members: members.collect(),
        limits: Limits::default(),
    }
}

fn peer_address(member: &MemberSpec) -> String {
    format!("{}:{}", member.host, member.peer_port)
}

fn client_address(member: &MemberSpec) -> String {
    format!("{}:{}", member.host, member.client_port)
}

/// A member listens on the address that it is named with; one that is named otherwise listens on
/// all of its addresses.
fn listen_address(host: &str, port: u16) -> SocketAddr {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) if bare == "localhost" => Ipv4Addr::LOCALHOST.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(address, port)
}

fn server_toml(member: &MemberSpec, plan: &Plan<'_>) -> Result<String, Failure> {
    let config = ServerConfig {
        member: member.id,
        data: PathBuf::from("data"),
        bootstrap: PathBuf::from("bootstrap.json"),
        peer: Endpoint {
            listen: listen_address(&member.host, member.peer_port),
            advertise: peer_address(member),
        },
        client: Endpoint {
            listen: listen_address(&member.host, member.client_port),
            advertise: client_address(member),
        },
        tls: Tls {
            ca: PathBuf::from("ca.pem"),
            certificate: PathBuf::from("member.pem"),
            key: PathBuf::from("member.key"),
        },
        log: Log {
            segment_bytes: plan.segment_bytes,
        },
    };
    toml::to_string(&config).map_err(Failure::configuration)
}

fn write_context(folder: &Path, plan: &Plan<'_>) -> Result<(), Failure> {
    let context = folkmoot_client::Context {
        endpoints: plan.members.iter().map(client_address).collect(),
        ca: PathBuf::from("ca.pem"),
        certificate: PathBuf::from("client.pem"),
        key: PathBuf::from("client.key"),
    };
    let text = toml::to_string(&context).map_err(Failure::configuration)?;
    write(&folder.join("context.toml"), text.as_bytes(), PUBLIC)
}

/// Permissions of what anyone may read.
const PUBLIC: u32 = 0o644;
/// Permissions of a key.
const PRIVATE: u32 = 0o600;

fn write_credentials(folder: &Path, name: &str, of: &Credentials) -> Result<(), Failure> {
    write(
        &folder.join(format!("{name}.pem")),
        of.certificate.as_bytes(),
        PUBLIC,
    )?;
    write(
        &folder.join(format!("{name}.key")),
        of.key.as_bytes(),
        PRIVATE,
    )
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path).map_err(|error| Failure::file(path, &error))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|error| Failure::file(path, &error))
}

fn certificate_failure(error: rcgen::Error) -> Failure {
    Failure::configuration(format!("can not make a certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_member_is_an_id_a_host_and_two_ports() {
        let spec: MemberSpec = "2=node-2.example:7101/7201".parse().unwrap();
        assert_eq!(
            (
                spec.id,
                spec.host.as_str(),
                spec.peer_port,
                spec.client_port
            ),
            (MemberId(2), "node-2.example", 7101, 7201)
        );
        for bad in [
            "",
            "1",
            "1=h:1",
            "0=h:1/2",
            "1=:1/2",
            "1=h:x/2",
            "1=h:1/99999",
        ] {
            assert!(bad.parse::<MemberSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_listens_everywhere_and_an_address_where_it_says() {
        assert_eq!(listen_address("node-2.example", 1).to_string(), "0.0.0.0:1");
        assert_eq!(listen_address("10.0.0.2", 1).to_string(), "10.0.0.2:1");
        assert_eq!(listen_address("[::1]", 1).to_string(), "[::1]:1");
    }

    #[test]
    fn what_is_made_can_be_read_and_is_never_overwritten() {
        let folder = std::env::temp_dir().join(format!("folkmoot-init-{}", std::process::id()));
        let members: Vec<MemberSpec> = ["1=127.0.0.1:1/2", "2=127.0.0.1:3/4", "3=127.0.0.1:5/6"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let plan = Plan {
            members: &members,
            segment_bytes: SEGMENT_BYTES_MIN,
        };
        let cluster = make(&plan, &folder).unwrap();

        let bytes = fs::read(folder.join("member-2/bootstrap.json")).unwrap();
        assert_eq!(bytes, fs::read(folder.join("bootstrap.json")).unwrap());
        let bootstrap = Bootstrap::from_bytes(&bytes).unwrap();
        assert_eq!((bootstrap.cluster, bootstrap.members.len()), (cluster, 3));
        for key in ["ca.key", "client.key", "member-1/member.key"] {
            let mode = fs::metadata(folder.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let config = ServerConfig::from_file(&folder.join("member-3/server.toml")).unwrap();
        assert_eq!(config.client.advertise, "127.0.0.1:6");
        let context = folkmoot_client::ContextChoice {
            context: Some(folder.join("context.toml")),
            ..Default::default()
        };
        assert_eq!(context.resolve().unwrap().endpoints.len(), 3);

        let again = make(&plan, &folder).unwrap_err();
        assert!(again.message.contains("nothing was written"), "{again:?}");
        assert_eq!(bytes, fs::read(folder.join("bootstrap.json")).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_even_number_of_members_is_refused() {
        let members = vec!["1=h:1/2".parse().unwrap(), "2=h:3/4".parse().unwrap()];
        let plan = Plan {
            members: &members,
            segment_bytes: SEGMENT_BYTES_MIN,
        };
        let error = make(&plan, Path::new("/nonexistent/never")).unwrap_err();
        assert!(error.message.contains("1, 3 or 5"), "{error:?}");
    }
}

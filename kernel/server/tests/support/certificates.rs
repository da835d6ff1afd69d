//! Certificates as `folkmoot init` makes them.

use std::path::{Path, PathBuf};

use folkmoot_proto::MemberId;
use folkmoot_server::tls::{CLIENT_NAME, MEMBER_NAME, member_name};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A cluster's authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("self-signed"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn member(&self, member: MemberId) -> Issued {
        self.issue(vec![MEMBER_NAME.to_owned(), member_name(member)])
    }

    pub(crate) fn client(&self) -> Issued {
        self.issue(vec![CLIENT_NAME.to_owned()])
    }

    fn issue(&self, names: Vec<String>) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &self.0))
            .expect("signed");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        std::fs::write(&certificate, &self.certificate).expect("writable");
        std::fs::write(&key, &self.key).expect("writable");
        (certificate, key)
    }
}

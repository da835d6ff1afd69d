//! The certificates of a cluster: one authority, and a role in every certificate.
//!
//! A member's certificate carries `member.folkmoot.internal` and its own name, a client's carries
//! `client.folkmoot.internal`. Each side asks for the role that it wants to talk to, so that a
//! client's certificate can not speak the peers' protocol.

use folkmoot_proto::MemberId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// The name in every client's certificate.
const CLIENT_NAME: &str = "client.folkmoot.internal";
/// The name in every member's certificate.
const MEMBER_NAME: &str = "member.folkmoot.internal";

/// A certificate and its key, in PEM.
pub(crate) struct Credentials {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The authority of a cluster.
pub(crate) struct Authority {
    pub(crate) credentials: Credentials,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        let mut params = params("Folkmoot cluster authority", Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let credentials = Credentials {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        };
        Ok(Self {
            credentials,
            issuer: Issuer::new(params, key),
        })
    }

    /// A member's certificate, for both sides of a connection.
    pub(crate) fn member(&self, member: MemberId) -> Result<Credentials, rcgen::Error> {
        let own = format!("member-{member}.folkmoot.internal");
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue(
            &format!("member {member}"),
            vec![MEMBER_NAME.to_owned(), own],
            &usages,
        )
    }

    /// A client's certificate.
    pub(crate) fn client(&self) -> Result<Credentials, rcgen::Error> {
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        self.issue("client", vec![CLIENT_NAME.to_owned()], &usages)
    }

    fn issue(
        &self,
        name: &str,
        names: Vec<String>,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Result<Credentials, rcgen::Error> {
        let mut params = params(name, names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

fn params(name: &str, names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // The clocks of a cluster's machines may differ, and a cluster outlives a certificate that
    // nobody renews: the authority is what is to be guarded.
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2124, 1, 1);
    Ok(params)
}

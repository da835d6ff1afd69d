//! Who may speak which protocol: certificates of one authority, with their role in a name.
//!
//! A member's certificate has the names `member.folkmoot.internal` and
//! `member-<ID>.folkmoot.internal`, a client's has `client.folkmoot.internal`. The verifiers demand
//! the role's name in the handshake, so that a client's certificate can not speak the peers'
//! protocol, nor the reverse, and nothing of another cluster (another authority) gets in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use folkmoot_proto::MemberId;
use ring::hmac;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::config;

/// The protocol of clients, in TLS's application-layer negotiation.
pub const CLIENT_ALPN: &[u8] = b"folkmoot-client/1";
/// The protocol of members.
pub const PEER_ALPN: &[u8] = b"folkmoot-peer/1";
/// The name in every member's certificate.
pub const MEMBER_NAME: &str = "member.folkmoot.internal";
/// The name in every client's certificate.
pub const CLIENT_NAME: &str = "client.folkmoot.internal";

/// The name that only this member's certificate has.
#[must_use]
pub fn member_name(member: MemberId) -> String {
    format!("member-{member}.folkmoot.internal")
}

/// Why certificates can not be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A PEM file can not be read, or has nothing of the kind in it.
    #[error("can not read {what} from {}: {reason}", path.display())]
    Unreadable {
        /// What was looked for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The authority's certificate can not be an authority.
    #[error("{} holds no certificate authority: {reason}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The authority did not sign the certificate, or it is not valid today.
    #[error("the certificate {} is not accepted by the cluster's authority: {reason}", path.display())]
    NotTrusted {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificate is not this member's.
    #[error("the certificate {} is not member {member}'s: it lacks the name {name}", path.display())]
    NotThisMember {
        /// The certificate's file.
        path: PathBuf,
        /// The member.
        member: MemberId,
        /// The name that is missing.
        name: String,
    },
    /// The key does not belong to the certificate.
    #[error("the key {} does not belong to the certificate: {reason}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A member's certificate and key, and its cluster's authority; checked.
#[derive(Debug)]
pub(crate) struct Identity {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_path: PathBuf,
}

impl Identity {
    /// Reads the files and checks that the other members will accept them.
    pub(crate) fn load(tls: &config::Tls, member: MemberId) -> Result<Self, CertificateError> {
        let provider = Arc::new(provider());
        let mut roots = RootCertStore::empty();
        for authority in read_certificates(&tls.ca)? {
            roots
                .add(authority)
                .map_err(|error| CertificateError::Authority {
                    path: tls.ca.clone(),
                    reason: error.to_string(),
                })?;
        }
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| {
            CertificateError::Unreadable {
                what: "a private key",
                path: tls.key.clone(),
                reason: error.to_string(),
            }
        })?;
        let identity = Self {
            provider,
            roots: Arc::new(roots),
            chain: read_certificates(&tls.certificate)?,
            key,
            key_path: tls.key.clone(),
        };
        identity.check(tls, member)?;
        Ok(identity)
    }

    fn check(&self, tls: &config::Tls, member: MemberId) -> Result<(), CertificateError> {
        let not_trusted = |reason: String| CertificateError::NotTrusted {
            path: tls.certificate.clone(),
            reason,
        };
        let Some((own, intermediates)) = self.chain.split_first() else {
            return Err(not_trusted("the file is empty".to_owned()));
        };
        self.verifier(MEMBER_NAME)
            .and_then(|verifier| verifier.verify_client_cert(own, intermediates, UnixTime::now()))
            .map_err(|error| not_trusted(error.to_string()))?;
        if !has_name(own, &member_name(member)) {
            return Err(CertificateError::NotThisMember {
                path: tls.certificate.clone(),
                member,
                name: member_name(member),
            });
        }
        self.peer_client().map(drop)
    }

    /// For the endpoint on which clients are accepted.
    pub(crate) fn client_server(&self) -> Result<rustls::ServerConfig, CertificateError> {
        self.server(CLIENT_NAME, CLIENT_ALPN)
    }

    /// For the endpoint on which members are accepted.
    pub(crate) fn peer_server(&self) -> Result<rustls::ServerConfig, CertificateError> {
        self.server(MEMBER_NAME, PEER_ALPN)
    }

    /// For connections to other members.
    pub(crate) fn peer_client(&self) -> Result<rustls::ClientConfig, CertificateError> {
        let mut config = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.key_error(&error))?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.key_error(&error))?;
        config.alpn_protocols = vec![PEER_ALPN.to_vec()];
        Ok(config)
    }

    /// A secret for a purpose: the same at each start, and of no use to find the private key.
    pub(crate) fn secret(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.secret_der());
        let mut secret = [0; 32];
        for (byte, of) in secret
            .iter_mut()
            .zip(hmac::sign(&key, purpose.as_bytes()).as_ref())
        {
            *byte = *of;
        }
        secret
    }

    fn server(&self, role: &str, alpn: &[u8]) -> Result<rustls::ServerConfig, CertificateError> {
        let verifier = self
            .verifier(role)
            .map_err(|error| self.key_error(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.key_error(&error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.key_error(&error))?;
        config.alpn_protocols = vec![alpn.to_vec()];
        // Early data can be replayed by anyone who saw it.
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn verifier(&self, role: &str) -> Result<RoleVerifier, rustls::Error> {
        let inner =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let role = ServerName::try_from(role.to_owned())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(RoleVerifier { inner, role })
    }

    fn key_error(&self, error: &rustls::Error) -> CertificateError {
        CertificateError::Key {
            path: self.key_path.clone(),
            reason: error.to_string(),
        }
    }
}

/// Whether the certificate is valid for `name`.
pub(crate) fn has_name(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .and_then(|parsed| verify_server_name(&parsed, &name))
        .is_ok()
}

/// ring, with AES-128-GCM first: it is the cheapest where the processor has AES instructions.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    provider
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let unreadable = |reason: String| CertificateError::Unreadable {
        what: "a certificate",
        path: path.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("the file has none".to_owned()));
    }
    Ok(certificates)
}

/// Demands a chain to the cluster's authority, and the role's name.
#[derive(Debug)]
struct RoleVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    role: ServerName<'static>,
}

impl ClientCertVerifier for RoleVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.role)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

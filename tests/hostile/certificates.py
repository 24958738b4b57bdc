"""Certificates as an attacker has them: of another authority, out of date, of the wrong shape, stolen.

They are made with `cryptography`; those that the mesh's own authority is to have signed are signed with its
key, which a test has at hand and an attacker has not.
"""

import datetime
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass
class Identity:
    """A certificate with its chain, and a key that should be its own."""

    certificate: x509.Certificate
    key: object
    chain: list = field(default_factory=list)


def load(folder: Path) -> Identity:
    """What `rhumb cert issue` wrote."""
    data = (folder / "identity.pem").read_bytes()
    first, *chain = x509.load_pem_x509_certificates(data)
    return Identity(first, serialization.load_pem_private_key(_key(data), None), chain)


def _key(data: bytes) -> bytes:
    return re.search(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n?", data, re.S)[0]


class Authority:
    """The mesh's, or one that only calls itself so."""

    def __init__(self, domain: str, pem: bytes | None = None):
        self.domain = domain
        if pem is None:
            self.key = ec.generate_private_key(ec.SECP256R1())
            self.certificate = self._sign("another authority", self.key, [], ca=True, of_itself=True)
        else:
            self.key = serialization.load_pem_private_key(_key(pem), None)
            self.certificate = x509.load_pem_x509_certificates(pem)[0]

    def issue(self, role: str, region: str, name: str, *, domain=None, uris=None, begins=-1.0, ends=30.0, ca=False,
              purposes=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH), padding=0) -> Identity:
        """A certificate as the mesh's are, but for what is asked otherwise. Times are days from now."""
        domain = domain or self.domain
        uris = [f"spiffe://{domain}/region/{region}/{role}/{name}"] if uris is None else uris
        names = [x509.DNSName(f"{name}.{region}.{domain}")] + [x509.UniformResourceIdentifier(u) for u in uris]
        names += [x509.DNSName(f"{'x' * 60}.{i}.{domain}") for i in range(padding)]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(f"{role} {region}/{name}", key, names, begins=begins, ends=ends, ca=ca, purposes=purposes)
        return Identity(certificate, key)

    def _sign(self, subject, key, names, *, begins=-1.0, ends=30.0, ca=False, purposes=(), of_itself=False):
        now = datetime.datetime.now(datetime.timezone.utc)
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(named)
            .issuer_name(named if of_itself else self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                               "encipher_only", "decipher_only"), False)
        usage |= {"digital_signature": True, "key_cert_sign": ca, "crl_sign": ca}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def all_of(mesh: Path, ours: Authority) -> dict[str, Identity | None]:
    """Everyone who dials in a case, by the name that the cases use."""
    domain, theirs = ours.domain, Authority(ours.domain)
    app, hostile = load(mesh / "clients/us-east-app"), load(mesh / "nodes/ap-southeast-n1/identity")
    here = ("client", "us-east", "app")
    uris = [f"spiffe://{domain}/region/us-east/client/{name}" for name in ("app", "admin")]
    return {
        "app": app,
        "operator": load(mesh / "operators/us-east-admin"),
        "node": hostile,
        "itself": load(mesh / "nodes/us-east-n1/identity"),
        "revoked": load(mesh / "clients/us-east-thief"),
        "guest": load(mesh / "clients/us-east-guest"),
        "nobody": None,
        "another authority": theirs.issue(*here),
        "with another authority's chain": replace(theirs.issue(*here), chain=[theirs.certificate]),
        "signed by a leaf": _by_leaf(ours, app, here),
        "expired": ours.issue(*here, begins=-3.0, ends=-1.0),
        "not yet valid": ours.issue(*here, begins=1.0, ends=3.0),
        "of no region of the mesh": ours.issue("client", "atlantis", "app"),
        "node of no region of the mesh": ours.issue("node", "atlantis", "n1"),
        "of another trust domain": ours.issue(*here, domain="elsewhere.example"),
        "with two identities": ours.issue(*here, uris=uris),
        "without an identity": ours.issue(*here, uris=[]),
        "of an unknown role": ours.issue("emperor", "us-east", "app"),
        "of a path that climbs": ours.issue(*here, uris=[f"spiffe://{domain}/region/us-east/client/../../x"]),
        "an authority's own": ours.issue(*here, ca=True),
        "for no purpose of ours": ours.issue(*here, purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)),
        "without its key": Identity(app.certificate, ec.generate_private_key(ec.SECP256R1()), app.chain),
        "with a chain of hundreds": replace(app, chain=[theirs.certificate] * 250),
        "with thousands of names": ours.issue(*here, padding=1500),
        "flooder": ours.issue("client", "us-east", "flooder"),
        "dripping": replace(app, chain=[theirs.certificate] * 40),
    }


def _by_leaf(ours: Authority, leaf: Identity, here) -> Identity:
    """Signed with the key of a certificate that may not sign."""
    forged = Authority(ours.domain)
    forged.key, forged.certificate = leaf.key, leaf.certificate
    return replace(forged.issue(*here), chain=[leaf.certificate])

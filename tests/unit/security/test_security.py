"""Keys, certificates, the serializer `auth`, and app.setup_security() (C-098)."""
from __future__ import annotations

import base64
import builtins
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps, loads, registry
from signers import make_signer

from pyceleryc import Celery, security
from pyceleryc.exceptions import ImproperlyConfigured, SecurityError
from pyceleryc.security.certificate import Certificate, CertStore, FSCertStore
from pyceleryc.security.key import PrivateKey
from pyceleryc.security.serialization import SecureSerializer, register_auth
from pyceleryc.security.utils import get_digest_algorithm, reraise_errors


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp('signers')
    make_signer(made, 'alice')
    make_signer(made, 'bob', password=b'secret')
    make_signer(made, 'old', days=-1)
    make_signer(made, 'curve', elliptic=True)
    (made / 'trusted').mkdir()
    shutil.copy(made / 'alice.pem', made / 'trusted')
    return made


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Kombu's registry is the process's."""
    names = ('_encoders', '_decoders', '_disabled_content_types', 'type_to_name', 'name_to_type')
    saved = {name: getattr(registry, name).copy() for name in names}
    yield
    for name, value in saved.items():
        setattr(registry, name, value)


def signer(folder: Path, name: str, store: Any = None, **options: Any) -> SecureSerializer:
    password = b'secret' if name == 'bob' else None
    cert = Certificate((folder / f'{name}.pem').read_text())
    if store is None:
        store = CertStore()
        store.add_cert(cert)
    return SecureSerializer(PrivateKey((folder / f'{name}.key').read_bytes(), password), cert, store, **options)


@pytest.mark.parametrize('options', [{}, {'digest': 'sha512'}, {'serializer': 'pickle'}, {'serializer': 'yaml'}])
@pytest.mark.parametrize('name', ['alice', 'bob'])
def test_round_trip(folder: Path, name: str, options: Any) -> None:
    both = signer(folder, name, **options)
    data = [[1, 'ä'], {'k': b'\0\1'.decode()}, None]
    text = both.serialize(data)
    assert isinstance(text, str)
    assert both.deserialize(text) == both.deserialize(text.encode()) == data


def test_parts_of_a_message(folder: Path) -> None:
    both = signer(folder, 'alice')
    parts = base64.b64decode(both.serialize({'a': 1})).split(b'\0\1')
    assert parts[2:] == [b'application/json', b'utf-8', b'{"a": 1}']
    who = base64.b64decode(parts[0]).decode()
    assert who == both._cert.get_id() == f'Örg alice {both._cert.get_serial_number()}'
    assert both._cert.get_issuer() == 'Örg alice'


def test_what_is_refused(folder: Path) -> None:
    alice, bob, old = (signer(folder, name) for name in ('alice', 'bob', 'old'))
    text = alice.serialize('pay 100')
    forged = base64.b64encode(base64.b64decode(text).replace(b'pay 100', b'pay 999'))
    for reader, message, why in (
            (alice, forged, 'Bad signature'), (bob, text, 'Unknown certificate'),
            (old, old.serialize(1), 'Expired certificate'), (alice, b'foo', 'Incorrect padding'),
            (alice, base64.b64encode(b'foo\0\1bar'), '2 parts'), (alice, '', '1 parts'),
            (signer(folder, 'alice', digest='sha512'), text, 'Bad signature')):
        with pytest.raises(SecurityError, match=why):
            reader.deserialize(message)
    with pytest.raises(SecurityError, match='Unable to serialize'):
        alice.serialize(object())


def test_half_of_a_serializer(folder: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match='key'):
        SecureSerializer().serialize(1)
    with pytest.raises(ImproperlyConfigured, match='store'):
        SecureSerializer().deserialize('')


def test_bad_keys_and_certificates(folder: Path) -> None:
    key = (folder / 'bob.key').read_text()
    for args in (('x',), (None,), (key,), (key, 'wrong'), ((folder / 'curve.key').read_text(),)):
        with pytest.raises(SecurityError, match='Invalid private key'):
            PrivateKey(*args)  # type: ignore[arg-type]
    for text in ('x', None, (folder / 'curve.pem').read_text()):
        with pytest.raises(SecurityError, match='Invalid certificate'):
            Certificate(text)  # type: ignore[arg-type]
    assert PrivateKey(key, 'secret').sign('data', get_digest_algorithm())


def test_stores(folder: Path) -> None:
    alice = Certificate((folder / 'alice.pem').read_text())
    store = FSCertStore(str(folder / 'trusted'))
    assert [cert.get_id() for cert in store.itercerts()] == [alice.get_id()]
    assert store[alice.get_id()].get_id() == store[alice.get_id().encode()].get_id()
    with pytest.raises(SecurityError, match='Duplicate certificate'):
        store.add_cert(alice)
    with pytest.raises(SecurityError, match='Unknown certificate'):
        store['nobody 1']
    with pytest.raises(SecurityError, match=r'old\.pem: Expired certificate'):
        FSCertStore(str(folder / 'o*.pem'))
    with pytest.raises(SecurityError, match=r'alice\.key: Invalid certificate'):
        FSCertStore(str(folder / 'a*.key'))
    assert list(FSCertStore(str(folder / 'nothing')).itercerts()) == []
    assert Certificate((folder / 'old.pem').read_text()).has_expired() and not alice.has_expired()


def test_utils() -> None:
    assert get_digest_algorithm('SHA256').name == 'sha256'
    for name in ('nope', 'Hash', '', None):
        with pytest.raises(SecurityError, match='digest'):
            get_digest_algorithm(name)  # type: ignore[arg-type]
    with pytest.raises(SecurityError, match=r"bad ValueError\('x'\)"), reraise_errors('bad {0!r}', (ValueError,)):
        raise ValueError('x')
    with pytest.raises(KeyError), reraise_errors(errors=(ValueError,)):
        raise KeyError('x')


class TestSetup:
    @pytest.fixture
    def app(self, folder: Path) -> Iterator[Any]:
        with Celery('secure', broker='memory://', set_as_current=False) as app:
            app.conf.update(
                task_default_queue='signed', task_serializer='auth', accept_content=['auth'], security_key=str(folder / 'alice.key'),
                security_certificate=str(folder / 'alice.pem'), security_cert_store=str(folder / 'trusted'))
            yield app

    def test_signs_and_disables_the_others(self, app: Any) -> None:
        app.setup_security()
        content_type, encoding, data = dumps({'x': 1}, 'auth')
        assert (content_type, encoding) == ('application/data', 'utf-8')
        assert loads(data, content_type, encoding, accept={'application/data'}) == {'x': 1}
        for name in ('json', 'pickle', 'yaml'):
            kind, how, text = dumps(1, name)
            with pytest.raises(ContentDisallowed):
                loads(text, kind, how)
        app.task(name='t.add', shared=False)(lambda x: x).delay(7)
        body, headers, properties, _ = app.amqp.producer.get('signed', 1)
        assert properties['content_type'] == 'application/data'
        assert loads(body, 'application/data', 'utf-8')[0] == [7] and headers['task'] == 't.add'

    def test_twice_with_exceptions(self, app: Any) -> None:
        app.setup_security()
        app.conf.security_digest = 'sha512'
        app.setup_security(allowed_serializers=['json'])
        assert loads('1', 'application/json', 'utf-8') == 1
        kind, how, text = dumps(5, 'auth')
        assert loads(text, kind, how) == 5

    def test_password(self, app: Any, folder: Path) -> None:
        files = {'key': str(folder / 'bob.key'), 'cert': str(folder / 'bob.pem'), 'store': str(folder / 'bob.pem')}
        with pytest.raises(SecurityError, match='Password was not given'):
            app.setup_security(**files)
        app.setup_security(**files, key_password=b'secret')
        kind, how, text = dumps(5, 'auth')
        assert loads(text, kind, how) == 5

    @pytest.mark.parametrize('setting', [{'task_serializer': 'json'}, {'accept_content': ['json', 'auth']}])
    def test_no_point(self, app: Any, setting: dict[str, Any]) -> None:
        app.conf.update(setting)
        with pytest.raises(ImproperlyConfigured, match='accept_content'):
            app.setup_security()

    @pytest.mark.parametrize('name', ['security_key', 'security_certificate', 'security_cert_store'])
    def test_missing(self, app: Any, name: str) -> None:
        app.conf[name] = None
        with pytest.raises(ImproperlyConfigured, match=f'missing: {name}$'):
            security.setup_security(app=app)
        assert loads('1', 'application/json', 'utf-8') == 1  # nothing was disabled

    def test_no_such_file(self, app: Any) -> None:
        with pytest.raises(FileNotFoundError, match='/no/such/key'):
            app.setup_security(key='/no/such/key')
        assert loads('1', 'application/json', 'utf-8') == 1

    def test_without_the_library(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition('.')[0] == 'cryptography':
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, '__import__', without)
        with pytest.raises(ImproperlyConfigured, match=r'pyceleryc\[auth\]'):
            app.setup_security()
        with pytest.raises(ImproperlyConfigured, match=r'pyceleryc\[auth\]'):
            register_auth()

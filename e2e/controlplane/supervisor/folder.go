package supervisor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockName marks a folder as ours: only such a folder, or an empty one, is
// written to, because the end deletes data in it.
const lockName = "controlplane.lock"

// folder holds every file of one control plane and its two tokens.
type folder struct {
	path                   string
	lock                   *os.File
	adminToken             string
	controllerManagerToken string
}

func (f *folder) certificates() string    { return filepath.Join(f.path, "certificates") }
func (f *folder) ca() string              { return filepath.Join(f.certificates(), "apiserver.crt") }
func (f *folder) etcdData() string        { return filepath.Join(f.path, "etcd") }
func (f *folder) privateKey() string      { return filepath.Join(f.path, "serviceaccount.key") }
func (f *folder) publicKey() string       { return filepath.Join(f.path, "serviceaccount.pub") }
func (f *folder) clientCA() string        { return filepath.Join(f.path, "client-ca.crt") }
func (f *folder) clientCAKey() string     { return filepath.Join(f.path, "client-ca.key") }
func (f *folder) tokens() string          { return filepath.Join(f.path, "tokens.csv") }
func (f *folder) auditPolicy() string     { return filepath.Join(f.path, "audit-policy.yaml") }
func (f *folder) auditLog() string        { return filepath.Join(f.path, "audit.log") }
func (f *folder) adminKubeconfig() string { return filepath.Join(f.path, "admin.kubeconfig") }
func (f *folder) controllerManagerKubeconfig() string {
	return filepath.Join(f.path, "controller-manager.kubeconfig")
}
func (f *folder) log(name string) string { return filepath.Join(f.path, name+".log") }

// claimFolder makes the folder private and ours until we end, however we end.
func claimFolder(path string) (*folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	if err := refuseForeign(path); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another control plane runs in %s", path)
	}
	return &folder{
		path:                   path,
		lock:                   lock,
		adminToken:             newToken(),
		controllerManagerToken: newToken(),
	}, nil
}

func refuseForeign(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) == 0 {
		return err
	}
	_, err = os.Stat(filepath.Join(path, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is neither empty nor a control plane's", path)
	}
	return err
}

// release leaves the lock file: it marks the folder.
func (f *folder) release() { f.lock.Close() }

// writeKeys writes what the API server reads when it starts.
func (f *folder) writeKeys() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	authority, authorityKey, err := clientAuthority()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		f.privateKey():  pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
		f.publicKey():   pemText("PUBLIC KEY", public),
		f.clientCA():    authority,
		f.clientCAKey(): authorityKey,
		f.tokens():      []byte(tokenFile(f.adminToken, f.controllerManagerToken)),
		f.auditPolicy(): []byte(auditPolicy),
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// clientAuthority makes what signs the certificates of clients: those that are
// asked for by a CertificateSigningRequest. Both are PEM.
func clientAuthority() (certificate, key []byte, err error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "clients of the control plane"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalECPrivateKey(signer)
	if err != nil {
		return nil, nil, err
	}
	return pemText("CERTIFICATE", signed), pemText("EC PRIVATE KEY", private), nil
}

// writeKubeconfigs needs the certificate that the API server made.
func (f *folder) writeKubeconfigs(server string) error {
	ca, err := os.ReadFile(f.ca())
	if err != nil {
		return err
	}
	admin := kubeconfig(server, ca, f.adminToken)
	if err := os.WriteFile(f.adminKubeconfig(), []byte(admin), 0o600); err != nil {
		return err
	}
	manager := kubeconfig(server, ca, f.controllerManagerToken)
	return os.WriteFile(f.controllerManagerKubeconfig(), []byte(manager), 0o600)
}

// tokenFile has lines of token, user, uid and groups.
func tokenFile(admin, controllerManager string) string {
	return admin + `,admin,admin,"system:masters"` + "\n" +
		controllerManager + `,system:kube-controller-manager,controller-manager,"system:masters"` + "\n"
}

// auditPolicy: every request once, without its body, except those that the API
// server makes to itself.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    users: ["system:apiserver"]
  - level: Metadata
`

// kubeconfig is complete in itself, so that it can be copied elsewhere.
func kubeconfig(server string, ca []byte, token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
  - name: test
    cluster:
      server: %s
      certificate-authority-data: %s
users:
  - name: test
    user:
      token: %s
contexts:
  - name: test
    context:
      cluster: test
      user: test
current-context: test
`, server, base64.StdEncoding.EncodeToString(ca), token)
}

func pemText(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newToken() string {
	bytes := make([]byte, 16)
	rand.Read(bytes) // never fails: it ends the process instead
	return hex.EncodeToString(bytes)
}

package supervisor

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestAProbeTrustsOnlyTheServerThatWroteTheFile(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	cases := []struct {
		name  string
		file  []byte // nil: there is none
		trust bool
	}{
		{"its certificate", own, true},
		{"no file yet", nil, false},
		{"a file that is not written yet", []byte{}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ca.crt")
			if c.file != nil {
				if err := os.WriteFile(path, c.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := probe{url: server.URL, caFile: path}.try(context.Background())
			if (err == nil) != c.trust {
				t.Errorf("%v", err)
			}
		})
	}
	if err := (probe{url: server.URL}).try(context.Background()); err == nil {
		t.Error("trusted without a file")
	}
	if err := (probe{url: server.URL, anyCertificate: true}).try(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestAProbeWantsTheAnswer200(t *testing.T) {
	for _, status := range []int{200, 201, 301, 401, 404, 500} {
		server := httptest.NewServer(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) { response.WriteHeader(status) }))
		err := probe{url: server.URL}.try(context.Background())
		if (err == nil) != (status == 200) {
			t.Errorf("%d: %v", status, err)
		}
		server.Close()
	}
}

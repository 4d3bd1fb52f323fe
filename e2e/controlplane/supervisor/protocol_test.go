package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// standIn is an API server of which only the switch exists.
type standIn struct{ err error }

func (s standIn) killAPIServer() error                   { return s.err }
func (s standIn) restartAPIServer(context.Context) error { return s.err }

func TestEachCommandIsAnsweredInOneLine(t *testing.T) {
	cases := []struct {
		command string
		err     error
		want    string
	}{
		{"kill-apiserver", nil, `{"ok":true,"command":"kill-apiserver"}`},
		{"start-apiserver", nil, `{"ok":true,"command":"start-apiserver"}`},
		{"kill-apiserver", errors.New("why"), `{"ok":false,"command":"kill-apiserver","error":"why"}`},
		{"start-apiserver", errors.New("a\nb"), `{"ok":false,"command":"start-apiserver","error":"a\nb"}`},
		{"fly", nil, `{"ok":false,"command":"fly","error":"unknown command; there are kill-apiserver, start-apiserver and stop"}`},
		{"", nil, `{"ok":false,"command":"","error":"unknown command; there are kill-apiserver, start-apiserver and stop"}`},
	}
	for _, c := range cases {
		got, err := json.Marshal(obey(context.Background(), standIn{c.err}, c.command))
		if err != nil || string(got) != c.want {
			t.Errorf("%q: %s %v", c.command, got, err)
		}
	}
}

func TestTheAnnouncementNamesTheAuditLogOnlyIfThereIsOne(t *testing.T) {
	plane := newPlane(Options{}, testFolder, "")
	plane.apiserverPort = 25000
	var plain, audited strings.Builder
	if err := announce(plane, &plain); err != nil {
		t.Fatal(err)
	}
	plane.options.Audit = true
	if err := announce(plane, &audited); err != nil {
		t.Fatal(err)
	}
	want := `{"ready":true,"kubeconfig":"/f/admin.kubeconfig","server":"https://127.0.0.1:25000","ca":"/f/certificates/apiserver.crt","dir":"/f"}` + "\n"
	if plain.String() != want {
		t.Errorf("%s", plain.String())
	}
	if !strings.Contains(audited.String(), `"audit":"/f/audit.log"`) {
		t.Errorf("%s", audited.String())
	}
}

func TestTheExportLineSurvivesAnyPath(t *testing.T) {
	cases := map[string]string{
		"/a b/c":  "export KUBECONFIG='/a b/c'",
		"/it's/$": `export KUBECONFIG='/it'\''s/$'`,
	}
	for path, want := range cases {
		if got := exportLine(path); got != want {
			t.Errorf("%s", got)
		}
	}
}

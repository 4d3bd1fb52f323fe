package supervisor

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFolderIsCreatedPrivateWithPrivateFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "dir")
	claimed := claim(t, path)
	if err := claimed.writeKeys(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnEmptyFolderOfSomebodyIsMadePrivate(t *testing.T) {
	path := t.TempDir()
	claim(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestAFolderWithForeignFilesIsRefusedAndUntouched(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := claimFolder(path); err == nil || !strings.Contains(err.Error(), "neither empty nor") {
		t.Errorf("%v", err)
	}
	info, _ := os.Stat(path)
	entries, _ := os.ReadDir(path)
	if info.Mode().Perm() != 0o755 || len(entries) != 1 {
		t.Errorf("mode %s, %d entries", info.Mode(), len(entries))
	}
}

func TestAFolderHasOneOwnerAtATime(t *testing.T) {
	path := t.TempDir()
	first := claim(t, path)
	if _, err := claimFolder(path); err == nil || !strings.Contains(err.Error(), "another control plane runs") {
		t.Errorf("%v", err)
	}
	first.release()
	claim(t, path)
}

func TestTokensAreLongAndDiffer(t *testing.T) {
	first, second := claim(t, t.TempDir()), claim(t, t.TempDir())
	tokens := map[string]bool{}
	for _, token := range []string{first.adminToken, first.controllerManagerToken, second.adminToken, second.controllerManagerToken} {
		tokens[token] = true
		if len(token) != 32 {
			t.Errorf("%d characters", len(token))
		}
	}
	if len(tokens) != 4 {
		t.Error("two tokens are the same")
	}
}

func TestTheTokenFileNamesWhoAndGroups(t *testing.T) {
	want := "a,admin,admin,\"system:masters\"\n" +
		"b,system:kube-controller-manager,controller-manager,\"system:masters\"\n"
	if got := tokenFile("a", "b"); got != want {
		t.Errorf("%q", got)
	}
}

func TestAKubeconfigIsCompleteInItself(t *testing.T) {
	got := kubeconfig("https://127.0.0.1:25000", []byte("CA"), "token")
	for _, line := range []string{
		"      server: https://127.0.0.1:25000\n",
		"      certificate-authority-data: Q0E=\n",
		"      token: token\n",
		"current-context: test\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is missing in\n%s", line, got)
		}
	}
}

func claim(t *testing.T, path string) *folder {
	t.Helper()
	claimed, err := claimFolder(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(claimed.release)
	return claimed
}

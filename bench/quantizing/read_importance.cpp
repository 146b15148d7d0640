// read_importance.cpp: has llama.cpp's own reader of importance files, the one of llama-quantize, read a file, and prints what it has found:
// a line of the datasets, chunks and tokens a chunk, then for each matrix its name, its count and its sums.
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

// As libllama-common (llama.cpp, common/imatrix-loader.h) declares it, which installs no header.
struct common_imatrix_entry {
    std::vector<float> sums;
    std::vector<int64_t> counts;
};

struct common_imatrix {
    std::map<std::string, common_imatrix_entry> entries;
    std::vector<std::string> datasets;
    int32_t chunk_count = 0;
    int32_t chunk_size = 0;
    bool is_legacy = false;
    bool has_metadata = false;
};

bool common_imatrix_load(const std::string &path, common_imatrix &imatrix);

int main(int argc, char **argv)
{
    common_imatrix imatrix;
    if (argc != 2 || !common_imatrix_load(argv[1], imatrix) || imatrix.is_legacy || !imatrix.has_metadata) {
        fprintf(stderr, "llama.cpp does not read it\n");
        return 1;
    }
    for (const std::string &dataset : imatrix.datasets)
        printf("%s ", dataset.c_str());
    printf("%d %d\n", imatrix.chunk_count, imatrix.chunk_size);
    for (const auto &[name, entry] : imatrix.entries) {
        printf("%s %lld", name.c_str(), (long long)entry.counts.at(0));
        for (float sum : entry.sums)
            printf(" %.9g", (double)sum);
        printf("\n");
    }
    return 0;
}

#include "frostline.h"
